import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Arena, type SharedArena } from 'lacuna/bitmap';

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));

/** The compiler, without its types: they declare a console of their own for the whole project. */
interface Compiler {
  main(
    args: readonly string[],
    files: {
      readFile(name: string, folder: string): string | null;
      writeFile(name: string, contents: Uint8Array): void;
      listFiles(): null;
    },
  ): Promise<{ error: Error | null; stderr: object }>;
}

const COMPILER: string = 'assemblyscript/asc';

/** A change to the kernels' sources: in a file of assembly/, one text in the place of another. */
export type Patch = readonly [file: string, before: string, after: string];

/** The part of WebAssembly that an arena over kernels of one's own needs. */
interface Engine {
  Module: new (bytes: Uint8Array) => object;
  Memory: new (limits: object) => SharedArena['memory'];
  Instance: new (module: object, imports: object) => { exports: { initArena(): void } };
}

/**
 * Compiles the kernels with changes. Without optimization, since that takes most of the time.
 *
 * @throws Error when a text to replace is not there exactly once: the kernels have changed, and so
 * must the patch.
 */
export async function compile(patches: readonly Patch[]): Promise<Uint8Array> {
  const { default: asc } = (await import(COMPILER)) as { default: Compiler };
  let binary: Uint8Array | undefined;
  const { error, stderr } = await asc.main(
    ['assembly/index.ts', '--config', 'asconfig.json', '--outFile', 'kernels.wasm', '-O0'],
    {
      readFile: (name, folder) => read(name, folder, patches),
      writeFile: (_, contents) => {
        binary = contents;
      },
      listFiles: () => null,
    },
  );
  if (error !== null || binary === undefined) throw new Error(`${error}\n${stderr}`);
  return binary;
}

function read(name: string, folder: string, patches: readonly Patch[]): string | null {
  let text: string;
  try {
    text = readFileSync(join(ROOT, folder, name), 'utf8');
  } catch {
    return null;
  }
  for (const [file, before, after] of patches) {
    if (!name.endsWith(`assembly/${file}`)) continue;
    if (text.split(before).length !== 2) throw new Error(`not once in ${file}: ${before}`);
    text = text.replace(before, after);
  }
  return text;
}

/** An arena whose kernels are these. */
export function arenaOf(kernels: Uint8Array): Arena {
  const { WebAssembly } = globalThis as unknown as { WebAssembly: Engine };
  const module = new WebAssembly.Module(kernels);
  const pages = 1024;
  const memory = new WebAssembly.Memory({ shared: true, initial: pages, maximum: pages });
  new WebAssembly.Instance(module, { env: { memory } }).exports.initArena();
  return Arena.attach({ module, memory, maximumBytes: pages * 65536 });
}
