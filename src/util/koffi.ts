import nodeModule from 'node:module';
import { beginLoading } from './koffi-guard.js';

export type Koffi = typeof import('koffi').default;

/**
 * The optional package koffi, through which functions of the C library can be called. Undefined where it is not
 * installed, on other systems than 64-bit Linux, and where the environment says LACUNA_FFI=off; then all works,
 * only slower.
 *
 * It is required and never imported: the package is there in both forms, and each one loads and prepares it anew.
 */
export function loadKoffi(): Koffi | undefined {
  if (!isSupported()) return undefined;
  const endLoading = beginLoading();
  try {
    return nodeModule.createRequire(import.meta.url)('koffi') as Koffi;
  } catch {
    return undefined;
  } finally {
    endLoading();
  }
}

/** What `declare` makes of functions of the C library; undefined where there is no koffi, or one of them is missing. */
export function bindCalls<T>(declare: (koffi: Koffi) => T): T | undefined {
  const koffi = loadKoffi();
  if (koffi === undefined) return undefined;
  try {
    return declare(koffi);
  } catch {
    return undefined;
  }
}

/** 64-bit only: elsewhere `off_t` would be too short to reach the end of a disk. */
function isSupported(): boolean {
  if (process.platform !== 'linux' || process.env.LACUNA_FFI === 'off') return false;
  return ['x64', 'arm64'].includes(process.arch);
}
