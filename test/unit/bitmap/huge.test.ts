import assert from 'node:assert/strict';
import { Arena, Bitmap } from 'lacuna/bitmap';
import { describe, it } from 'vitest';
import { Random } from './random.js';

const LARGEST = Number.MAX_SAFE_INTEGER;

/** The granules that are dirty, and nothing about those that are not. */
class SparseModel {
  readonly granules = new Set<number>();

  constructor(
    readonly size: number,
    readonly granularity: number,
  ) {}

  runs(): [number, number][] {
    const result: [number, number][] = [];
    for (const granule of [...this.granules].sort((a, b) => a - b)) {
      const last = result.at(-1);
      const end = Math.min((granule + 1) * this.granularity, this.size);
      if (last !== undefined && last[0] + last[1] === granule * this.granularity) {
        last[1] = end - last[0];
      } else {
        result.push([granule * this.granularity, end - granule * this.granularity]);
      }
    }
    return result;
  }
}

describe.each(['simd', 'scalar'] as const)('a bitmap of 8 PiB - 1 bytes, %s kernels', (variant) => {
  const arena = Arena.create({ variant });

  it.each([512, 4096, 65536, 2 ** 31])('holds scattered dirt at granularity %i', (granularity) => {
    const random = new Random(Random.seed());
    const bitmap = new Bitmap({ size: LARGEST, granularity, arena });
    const model = new SparseModel(LARGEST, granularity);
    const last = Math.floor((LARGEST - 1) / granularity);
    for (let i = 0; i < 3000; i++) {
      const base = random.pick([0, last - 5000, random.between(0, last)]);
      const granule = Math.min(last, base + random.between(0, 5000));
      const at = granule * granularity;
      if (random.fraction() < 0.7) {
        bitmap.set(Math.min(at + random.between(0, granularity - 1), LARGEST - 1), 1);
        model.granules.add(granule);
      } else {
        bitmap.reset(at, Math.min(granularity, LARGEST - at));
        model.granules.delete(granule);
      }
    }
    const runs = [...bitmap.ranges()].map(({ offset, length }) => [offset, length]);
    assert.deepEqual(runs, model.runs(), `LACUNA_SEED=${random.seed}`);
    assert.equal(bitmap.count, model.granules.size);
    assert.equal(
      bitmap.dirtyBytes,
      runs.reduce((sum, [, length]) => sum + length, 0),
    );
    bitmap.free();
  });

  it.each([512, 65536, 2 ** 31])('is full and empty at once at granularity %i', (granularity) => {
    const bitmap = new Bitmap({ size: LARGEST, granularity, arena });
    const granules = Math.ceil(LARGEST / granularity);
    bitmap.setAll();
    assert.deepEqual([bitmap.count, bitmap.dirtyBytes], [granules, LARGEST]);
    assert.equal(bitmap.nextZero(0), -1);
    assert.deepEqual([...bitmap.ranges()], [{ offset: 0, length: LARGEST }]);
    const hole = Math.floor(granules / 3) * granularity;
    bitmap.reset(hole, granularity);
    assert.equal(bitmap.nextZero(0), hole);
    assert.equal(bitmap.nextDirty(hole), hole + granularity);
    assert.equal(bitmap.countIn(hole, LARGEST - hole), LARGEST - hole - granularity);
    assert.equal(bitmap.count, granules - 1);
    bitmap.set(hole, 1);
    assert.deepEqual([...bitmap.ranges()], [{ offset: 0, length: LARGEST }]);
    const [, cut] = bitmap.split(2);
    assert.ok(Math.abs(cut - LARGEST / 2) <= granularity, `${cut}`);
    const copy = bitmap.snapshot();
    bitmap.xor(copy);
    assert.equal(bitmap.count, 0);
    bitmap.free();
    copy.free();
  });

  it('combines at every level of the tree', () => {
    const random = new Random(Random.seed());
    const granularity = 512;
    const last = Math.floor((LARGEST - 1) / granularity);
    const granules = () =>
      new Set(Array.from({ length: 2000 }, () => random.between(0, random.pick([last, 5e4]))));
    const a = granules();
    const b = granules();
    const expected = {
      merge: new Set([...a, ...b]),
      subtract: new Set([...a].filter((granule) => !b.has(granule))),
      intersect: new Set([...a].filter((granule) => b.has(granule))),
      xor: new Set([...a, ...b].filter((granule) => a.has(granule) !== b.has(granule))),
    };
    const make = (dirty: Set<number>): Bitmap => {
      const bitmap = new Bitmap({ size: LARGEST, granularity, arena });
      bitmap.setMany([...dirty].map((granule) => granule * granularity));
      return bitmap;
    };
    const other = make(b);
    for (const [operation, dirty] of Object.entries(expected)) {
      const bitmap = make(a);
      bitmap[operation as keyof typeof expected](other);
      const model = new SparseModel(LARGEST, granularity);
      for (const granule of dirty) model.granules.add(granule);
      const runs = [...bitmap.ranges()].map(({ offset, length }) => [offset, length]);
      assert.deepEqual(runs, model.runs(), `${operation}, LACUNA_SEED=${random.seed}`);
      assert.equal(bitmap.count, dirty.size);
      bitmap.free();
    }
    other.free();
  });

  it('grows from one leaf to the largest size and back', () => {
    const bitmap = new Bitmap({ size: 4096 * 512, granularity: 512, arena });
    bitmap.setAll();
    bitmap.resize(LARGEST);
    assert.deepEqual([...bitmap.ranges()], [{ offset: 0, length: 4096 * 512 }]);
    bitmap.set(LARGEST - 1, 1);
    assert.equal(bitmap.count, 4097);
    bitmap.resize(4096 * 512);
    assert.deepEqual([bitmap.count, bitmap.nextZero(0)], [4096, -1]);
    bitmap.free();
  });

  it('holds a million scattered granules of a petabyte in 64 MiB', () => {
    const before = arena.usedBytes;
    const random = new Random(1);
    const bitmap = new Bitmap({ size: 2 ** 50, granularity: 65536, arena });
    bitmap.setMany(Float64Array.from({ length: 1e6 }, () => random.between(0, 2 ** 50 - 1)));
    assert.ok(bitmap.count > 999_000);
    assert.ok(arena.usedBytes - before < 64 * 2 ** 20, `${arena.usedBytes - before} bytes`);
    bitmap.free();
    assert.equal(arena.usedBytes, before);
  });
});
