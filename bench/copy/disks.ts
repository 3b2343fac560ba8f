/** Disks to copy. What is random comes from fixed seeds, so that every run copies the same. */
import { randomFillSync } from 'node:crypto';
import { open } from 'node:fs/promises';

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;

/** Whole numbers below 2^32, by Marsaglia's xorshift. */
export function randomNumbers(seed = 0x9e3779b9): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** Offsets of `count` different blocks, scattered over a disk, in ascending order. */
export function scatter(size: number, count: number, block: number): number[] {
  const next = randomNumbers();
  const chosen = new Set<number>();
  while (chosen.size < count) chosen.add(Math.floor((next() / 2 ** 32) * (size / block)));
  return [...chosen].sort((a, b) => a - b).map((index) => index * block);
}

/** A raw file with extents of 64 KiB of random bytes, scattered over it. */
export async function makeSparse(
  path: string,
  { size, extents }: { size: number; extents: number },
): Promise<void> {
  const file = await open(path, 'w');
  try {
    await file.truncate(size);
    const bytes = Buffer.alloc(64 * KiB);
    for (const offset of scatter(size, extents, bytes.length)) {
      randomFillSync(bytes);
      await file.write(bytes, 0, bytes.length, offset);
    }
  } finally {
    await file.close();
  }
}

/** A raw file without holes; `shrinks` for content that a compressor makes about half as long. */
export async function makeDense(path: string, size: number, shrinks = false): Promise<void> {
  const file = await open(path, 'w');
  try {
    const bytes = Buffer.alloc(16 * MiB);
    for (let at = 0; at < size; at += bytes.length) {
      randomFillSync(bytes);
      // Of 8 bits 4 are left.
      if (shrinks) for (let i = 0; i < bytes.length; i++) bytes[i] &= 0x0f;
      await file.write(bytes, 0, Math.min(bytes.length, size - at), at);
    }
  } finally {
    await file.close();
  }
}
