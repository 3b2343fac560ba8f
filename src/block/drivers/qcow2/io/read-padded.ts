import type { BlockDevice } from '../../../contract/index.js';

/** Reads bytes that may lie behind the end of a file, where an image holds zeroes. */
export async function readPadded(
  file: BlockDevice,
  offset: number,
  target: Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  const there = Math.max(0, Math.min(target.length, file.size - offset));
  if (there < target.length) target.fill(0, there);
  if (there === 0) return;
  const bytes = there === target.length ? target : target.subarray(0, there);
  await file.read(offset, bytes, { signal });
}
