/**
 * The part of WebAssembly that is used here. TypeScript keeps its types with those of the browser;
 * declared like this, neither this package nor one that embeds it needs them.
 */
interface Engine {
  validate(bytes: Uint8Array): boolean;
  readonly Module: new (bytes: Uint8Array) => CompiledModule;
  readonly Instance: new (
    module: CompiledModule,
    imports: { env: { memory: SharedMemory } },
  ) => { readonly exports: Readonly<Record<string, unknown>> };
  readonly Memory: new (options: {
    shared: true;
    initial: number;
    maximum: number;
  }) => SharedMemory;
}

/** A compiled module; it can be posted to other threads. */
export type CompiledModule = object;

/** A memory that threads share; it can be posted to them. */
export interface SharedMemory {
  readonly buffer: SharedArrayBuffer;
}

export const { WebAssembly: engine } = globalThis as unknown as { WebAssembly: Engine };
