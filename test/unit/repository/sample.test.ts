import { afterEach, expect, test, vi } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { Sample } from '#dist/repository/verify/sample.js';

const KiB = 1024;
const MiB = 1024 * KiB;
const BLOCK = 64 * KiB;

afterEach(() => vi.restoreAllMocks());

/** A bitmap in which these blocks are dirty, of 1 GiB. */
function blocks(...offsets: number[]): Bitmap {
  const bitmap = new Bitmap({ size: 1024 * MiB, granularity: BLOCK });
  for (const offset of offsets) bitmap.set(offset, BLOCK);
  return bitmap;
}

/** How many bytes are left of each. */
function kept(share: number, bitmaps: readonly Bitmap[]): number[] {
  const sample = new Sample(share);
  return bitmaps.map((bitmap) => {
    sample.keepIn(bitmap);
    const { dirtyBytes } = bitmap;
    bitmap.free();
    return dirtyBytes;
  });
}

const sum = (values: readonly number[]) => values.reduce((all, value) => all + value, 0);

test.each([0, 0.3, 0.99])(
  'a share of many small images is that share of all, and not all or none of each (from %d)',
  (phase) => {
    vi.spyOn(Math, 'random').mockReturnValue(phase);
    const left = kept(
      0.05,
      Array.from({ length: 200 }, (_, i) => blocks(i * MiB)),
    );
    expect(sum(left)).toBe(10 * BLOCK);
  },
);

test('holes between what is dirty do not count', () => {
  const [left] = kept(0.5, [blocks(...Array.from({ length: 8 }, (_, i) => i * 100 * MiB))]);
  expect(left).toBe(4 * BLOCK);
});

test('other places are taken each time, and all of them are taken some time', () => {
  const seen = new Set<number>();
  for (let phase = 0; phase < 1; phase += 0.1) {
    vi.spyOn(Math, 'random').mockReturnValue(phase);
    const left = kept(
      0.1,
      Array.from({ length: 10 }, (_, i) => blocks(i * MiB)),
    );
    seen.add(left.findIndex((bytes) => bytes > 0));
  }
  expect(seen.size).toBe(10);
});

test('what lies together within 1 MiB is read together', () => {
  const [left] = kept(0.5, [blocks(0, BLOCK, 2 * BLOCK, 512 * MiB, 512 * MiB + BLOCK)]);
  expect([3 * BLOCK, 2 * BLOCK]).toContain(left);
});

test('all of it is all of it', () => {
  expect(kept(1, [blocks(0, 512 * MiB)])).toEqual([2 * BLOCK]);
});
