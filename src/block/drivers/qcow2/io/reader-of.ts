import { statSync } from 'node:fs';
import type { BlockDevice } from '../../../contract/index.js';

/** What reads a file, with its real size: a device that grows has none to tell. */
export function readerOf(file: BlockDevice) {
  const read = (offset: number, target: Uint8Array) => file.read(offset, target);
  const path = file.size === Number.MAX_SAFE_INTEGER ? file.path : undefined;
  return { size: path === undefined ? file.size : statSync(path).size, read };
}
