import { readFileSync } from 'node:fs';
import { ownFile } from '../util/index.js';
import { type CompiledModule, engine } from './engine.js';

/** The two builds of the kernels. They hold the same functions and may share one memory. */
export type KernelVariant = 'simd' | 'scalar';

/** The smallest module with a 128-bit vector in it: an engine without SIMD does not validate it. */
const SIMD_PROBE = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0],
  ...[10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
);

const compiled = new Map<KernelVariant, CompiledModule>();

/** The build for this machine; the environment's LACUNA_WASM forces one. */
export function preferredVariant(): KernelVariant {
  const forced = process.env.LACUNA_WASM;
  if (forced === 'simd' || forced === 'scalar') return forced;
  if (forced !== undefined && forced !== '') {
    throw new RangeError(`LACUNA_WASM must be 'simd' or 'scalar', not '${forced}'`);
  }
  return engine.validate(SIMD_PROBE) ? 'simd' : 'scalar';
}

/** Compiles a build, once in each thread; other threads are sent the compiled module. */
export function kernelModule(variant: KernelVariant): CompiledModule {
  const known = compiled.get(variant);
  if (known !== undefined) return known;
  const module = new engine.Module(readFileSync(ownFile(`wasm/kernels.${variant}.wasm`)));
  compiled.set(variant, module);
  return module;
}
