import assert from 'node:assert/strict';
import { optionCheck } from '../util/index.js';

/** What the contract asks of a bitmap; see Bitmap for what each means. */
export interface BitmapUnderTest {
  readonly size: number;
  readonly granularity: number;
  readonly count: number;
  readonly dirtyBytes: number;
  set(offset: number, length: number): void;
  reset(offset: number, length: number): void;
  setAll(): void;
  resetAll(): void;
  get(offset: number): boolean;
  nextDirty(offset: number, end?: number): number;
  nextZero(offset: number, end?: number): number;
  nextDirtyArea(
    offset: number,
    end?: number,
    maxLength?: number,
  ): { offset: number; length: number } | null;
  status(offset: number, length: number): { dirty: boolean; length: number };
  ranges(from?: number, end?: number): Iterable<{ offset: number; length: number }>;
  countIn(offset: number, length: number): number;
  split(parts: number): number[];
  merge(other: this): void;
  subtract(other: this): void;
  intersect(other: this): void;
  xor(other: this): void;
  snapshot(): this;
  resize(size: number): void;
  serialize(offset?: number, length?: number): Uint8Array;
  deserialize(bytes: Uint8Array, offset?: number): void;
  digest(): string;
  claim(out: Float64Array, options: { maxBytes: number; from?: number; end?: number }): number;
  free(): void;
}

/** What a suite is told about the bitmaps it tests. */
export interface BitmapContractOptions<B extends BitmapUnderTest> {
  /** Makes a clean bitmap. */
  create(options: { size: number; granularity: number }): B;
}

/** One promise, as a test of any runner: `it(name, run)`. */
export interface ContractCase {
  readonly name: string;
  run(): void;
}

const checkBitmapContract = optionCheck<BitmapContractOptions<BitmapUnderTest>>({
  create: { needed: 'a function that makes a clean bitmap' },
});

const G = 65536;
/** Ten granules and a half. */
const SIZE = 10.5 * G;

/**
 * What every bitmap promises, for whoever makes another implementation or wraps this one. `run`
 * throws an AssertionError where a promise is broken.
 */
export function bitmapContract<B extends BitmapUnderTest>(
  options: BitmapContractOptions<B>,
): ContractCase[] {
  checkBitmapContract('bitmapContract', options as never);
  return Object.entries({ ...rounding, ...questions, ...algebra, ...wholes }).map(
    ([name, test]) => ({ name, run: () => runCase(options.create, test) }),
  );
}

/** Runs one case, and frees what it made whatever happens. */
function runCase(create: Create, test: (create: Create) => void): void {
  const made: BitmapUnderTest[] = [];
  try {
    test((options) => {
      const bitmap = create(options);
      made.push(bitmap);
      return bitmap;
    });
  } finally {
    for (const bitmap of made) bitmap.free();
  }
}

type Create = (options: { size: number; granularity: number }) => BitmapUnderTest;
type Cases = Record<string, (create: Create) => void>;

function runsOf(bitmap: BitmapUnderTest, from?: number, end?: number): [number, number][] {
  return [...bitmap.ranges(from, end)].map(({ offset, length }) => [offset, length]);
}

/** A bitmap with some runs of granules dirty, given as start and end. */
function bitmapWith(
  create: Create,
  runs: [number, number][],
  granularity = G,
  size = SIZE,
): BitmapUnderTest {
  const bitmap = create({ size, granularity });
  for (const [start, end] of runs) bitmap.set(start * G, Math.min(end * G, size) - start * G);
  return bitmap;
}

const rounding: Cases = {
  'set rounds outward to whole granules'(create) {
    const bitmap = create({ size: SIZE, granularity: G });
    bitmap.set(2 * G - 1, 2);
    assert.deepEqual(runsOf(bitmap), [[G, 2 * G]]);
  },
  'runs that touch are one run'(create) {
    const bitmap = create({ size: SIZE, granularity: G });
    for (const granule of [4, 5, 3, 7, 6]) bitmap.set(granule * G, 1);
    assert.deepEqual(runsOf(bitmap), [[3 * G, 5 * G]]);
  },
  'set of no bytes does nothing, wherever it is'(create) {
    const bitmap = create({ size: SIZE, granularity: G });
    bitmap.set(G + 1, 0);
    bitmap.set(SIZE, 0);
    assert.equal(bitmap.count, 0);
  },
  'reset rounds inward, so that dirt is never lost by rounding'(create) {
    const bitmap = bitmapWith(create, [[0, 4]]);
    bitmap.reset(G - 1, 2 * G + 1);
    assert.deepEqual(runsOf(bitmap), [
      [0, G],
      [3 * G, G],
    ]);
    bitmap.reset(1, G - 1);
    assert.equal(bitmap.get(0), true);
  },
  'reset takes the partial last granule as whole when the range reaches the end'(create) {
    const bitmap = bitmapWith(create, [[10, 11]]);
    bitmap.reset(10 * G, G / 2 - 1);
    assert.equal(bitmap.count, 1);
    bitmap.reset(10 * G, G / 2);
    assert.equal(bitmap.count, 0);
  },
  'the bytes of a partial last granule end at the size'(create) {
    const bitmap = bitmapWith(create, [[9, 11]]);
    assert.equal(bitmap.count, 2);
    assert.equal(bitmap.dirtyBytes, 1.5 * G);
    assert.deepEqual(runsOf(bitmap), [[9 * G, 1.5 * G]]);
  },
  'ranges behind the size are refused and change nothing'(create) {
    const bitmap = create({ size: SIZE, granularity: G });
    assert.throws(() => bitmap.set(SIZE - 1, 2), RangeError);
    assert.throws(() => bitmap.reset(SIZE - 1, 2), RangeError);
    assert.throws(() => bitmap.get(SIZE), RangeError);
    assert.throws(() => bitmap.status(SIZE, 1), RangeError);
    assert.throws(() => bitmap.countIn(SIZE, 1), RangeError);
    assert.equal(bitmap.count, 0);
  },
  'numbers that are no offsets are refused'(create) {
    const bitmap = create({ size: SIZE, granularity: G });
    for (const wrong of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
      assert.throws(() => bitmap.set(wrong, 1), RangeError);
      assert.throws(() => bitmap.reset(0, wrong), RangeError);
      assert.throws(() => bitmap.nextDirty(wrong), RangeError);
    }
    for (const wrong of ['1', null, undefined, {}, 1n]) {
      assert.throws(() => bitmap.set(wrong as number, 1), TypeError);
      assert.throws(() => bitmap.get(wrong as number), TypeError);
    }
  },
};

const questions: Cases = {
  'nextDirty inside a dirty granule, and nextZero inside a clean one, answer the offset itself'(
    create,
  ) {
    const bitmap = bitmapWith(create, [[2, 4]]);
    assert.equal(bitmap.nextDirty(0), 2 * G);
    assert.equal(bitmap.nextDirty(2 * G + 5), 2 * G + 5);
    assert.equal(bitmap.nextZero(5), 5);
    assert.equal(bitmap.nextZero(2 * G + 5), 4 * G);
  },
  'nextDirty and nextZero answer -1 when there is none before the end'(create) {
    const bitmap = bitmapWith(create, [[2, 11]]);
    assert.equal(bitmap.nextDirty(0, 2 * G), -1);
    assert.equal(bitmap.nextDirty(0, 2 * G + 1), 2 * G);
    assert.equal(bitmap.nextZero(2 * G), -1);
    assert.equal(bitmap.nextDirty(SIZE), -1);
    assert.equal(bitmap.nextDirty(5 * G, 4 * G), -1);
  },
  'nextDirtyArea is clipped to offset, end and length'(create) {
    const bitmap = bitmapWith(create, [[2, 6]]);
    assert.deepEqual(bitmap.nextDirtyArea(0), { offset: 2 * G, length: 4 * G });
    assert.deepEqual(bitmap.nextDirtyArea(3 * G + 1, 4 * G), { offset: 3 * G + 1, length: G - 1 });
    assert.deepEqual(bitmap.nextDirtyArea(0, SIZE, 7), { offset: 2 * G, length: 7 });
    assert.equal(bitmap.nextDirtyArea(6 * G), null);
  },
  'status tells the state at an offset and how far it runs'(create) {
    const bitmap = bitmapWith(create, [[2, 6]]);
    assert.deepEqual(bitmap.status(0, SIZE), { dirty: false, length: 2 * G });
    assert.deepEqual(bitmap.status(2 * G, SIZE - 2 * G), { dirty: true, length: 4 * G });
    assert.deepEqual(bitmap.status(3 * G + 1, 10), { dirty: true, length: 10 });
    assert.throws(() => bitmap.status(0, 0), RangeError);
  },
  'ranges are clipped to where they are asked for'(create) {
    const bitmap = bitmapWith(create, [
      [1, 3],
      [5, 6],
    ]);
    assert.deepEqual(runsOf(bitmap, G + 1, 5 * G + 1), [
      [G + 1, 2 * G - 1],
      [5 * G, 1],
    ]);
    assert.deepEqual(runsOf(bitmap, SIZE), []);
  },
  'countIn counts bytes, not granules'(create) {
    const bitmap = bitmapWith(create, [[1, 3]]);
    assert.equal(bitmap.countIn(0, SIZE), 2 * G);
    assert.equal(bitmap.countIn(2 * G - 3, 5), 5);
    assert.equal(bitmap.countIn(0, G + 1), 1);
    assert.equal(bitmap.countIn(SIZE, 0), 0);
  },
  'split cuts into equal shares of dirt'(create) {
    const bitmap = bitmapWith(create, [
      [0, 2],
      [8, 10],
    ]);
    assert.deepEqual(bitmap.split(2), [0, 8 * G, SIZE]);
    assert.deepEqual(bitmap.split(1), [0, SIZE]);
    assert.equal(bitmap.split(7).length, 8);
  },
};

const algebra: Cases = {
  'merge, subtract, intersect and xor are what sets know by these names'(create) {
    const a: [number, number][] = [[1, 4]];
    const b: [number, number][] = [[3, 6]];
    const of = (operation: 'merge' | 'subtract' | 'intersect' | 'xor'): [number, number][] => {
      const target = bitmapWith(create, a);
      const other = bitmapWith(create, b);
      target[operation](other);
      assert.deepEqual(runsOf(other), [[3 * G, 3 * G]], 'the source is unchanged');
      return runsOf(target);
    };
    assert.deepEqual(of('merge'), [[G, 5 * G]]);
    assert.deepEqual(of('subtract'), [[G, 2 * G]]);
    assert.deepEqual(of('intersect'), [[3 * G, G]]);
    assert.deepEqual(of('xor'), [
      [G, 2 * G],
      [4 * G, 2 * G],
    ]);
  },
  'a bitmap may be combined with itself'(create) {
    const bitmap = bitmapWith(create, [[1, 4]]);
    bitmap.merge(bitmap);
    bitmap.intersect(bitmap);
    assert.deepEqual(runsOf(bitmap), [[G, 3 * G]]);
    bitmap.xor(bitmap);
    assert.equal(bitmap.count, 0);
  },
  'merging coarse into fine dirties the whole coarse granule, clipped to the size'(create) {
    const fine = create({ size: SIZE, granularity: G / 4 });
    fine.merge(bitmapWith(create, [[10, 11]]));
    assert.deepEqual(runsOf(fine), [[10 * G, G / 2]]);
  },
  'merging fine into coarse rounds outward'(create) {
    const fine = create({ size: SIZE, granularity: G / 4 });
    fine.set(G, 1);
    const coarse = create({ size: SIZE, granularity: G });
    coarse.merge(fine);
    assert.deepEqual(runsOf(coarse), [[G, G]]);
  },
  'subtracting a part of a coarse granule leaves it dirty'(create) {
    const fine = create({ size: SIZE, granularity: G / 4 });
    fine.set(G, 1.75 * G);
    const coarse = bitmapWith(create, [[0, 4]]);
    coarse.subtract(fine);
    assert.deepEqual(runsOf(coarse), [
      [0, G],
      [2 * G, 2 * G],
    ]);
  },
  'bitmaps of different sizes do not combine'(create) {
    const bitmap = bitmapWith(create, [[1, 4]]);
    const other = create({ size: SIZE + 1, granularity: G });
    assert.throws(() => bitmap.merge(other), { code: 'ERR_BITMAP_MISMATCH' });
    assert.deepEqual(runsOf(bitmap), [[G, 3 * G]]);
  },
};

const wholes: Cases = {
  'setAll makes every byte dirty, and resetAll every byte clean'(create) {
    const bitmap = create({ size: SIZE, granularity: G });
    bitmap.setAll();
    assert.deepEqual([bitmap.count, bitmap.dirtyBytes], [11, SIZE]);
    assert.equal(bitmap.nextZero(0), -1);
    bitmap.resetAll();
    assert.deepEqual([bitmap.count, bitmap.dirtyBytes], [0, 0]);
  },
  'a snapshot and its origin go separate ways'(create) {
    const bitmap = bitmapWith(create, [[1, 4]]);
    const copy = bitmap.snapshot();
    bitmap.set(6 * G, 1);
    copy.reset(0, 2 * G);
    assert.deepEqual(runsOf(bitmap), [
      [G, 3 * G],
      [6 * G, G],
    ]);
    assert.deepEqual(runsOf(copy), [[2 * G, 2 * G]]);
    copy.free();
  },
  'resize adds clean granules, and a partial last granule keeps its state'(create) {
    const bitmap = bitmapWith(create, [[10, 11]]);
    bitmap.resize(20 * G);
    assert.deepEqual(runsOf(bitmap), [[10 * G, G]]);
    bitmap.resize(10 * G + 1);
    assert.deepEqual(runsOf(bitmap), [[10 * G, 1]]);
    bitmap.resize(10 * G);
    bitmap.resize(SIZE);
    assert.equal(bitmap.count, 0);
  },
  'the serialized form has bit 0 of byte 0 for the lowest offset'(create) {
    const bitmap = bitmapWith(create, [
      [0, 1],
      [9, 11],
    ]);
    assert.deepEqual([...bitmap.serialize()], [1, 6, 0, 0, 0, 0, 0, 0]);
    const other = create({ size: SIZE, granularity: G });
    other.deserialize(bitmap.serialize());
    assert.equal(other.digest(), bitmap.digest());
  },
  'serialized bits that cannot belong to the bitmap are refused and change nothing'(create) {
    const bitmap = bitmapWith(create, [[1, 4]]);
    const corrupt = { code: 'ERR_BITMAP_CORRUPT' };
    assert.throws(() => bitmap.deserialize(Uint8Array.of(0, 8, 0, 0, 0, 0, 0, 0)), corrupt);
    assert.throws(() => bitmap.deserialize(new Uint8Array(16)), corrupt);
    assert.throws(() => bitmap.deserialize(new Uint8Array(7)), corrupt);
    assert.throws(() => bitmap.deserialize(new Uint8Array(8), G), RangeError);
    assert.deepEqual(runsOf(bitmap), [[G, 3 * G]]);
  },
  'the digest is the SHA-256 of the serialized form'(create) {
    const bitmap = create({ size: SIZE, granularity: G });
    const ofEightZeroes = 'af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc';
    assert.equal(bitmap.digest(), ofEightZeroes);
  },
  'a claim takes the lowest runs, cuts at granules, and makes them clean'(create) {
    const bitmap = bitmapWith(create, [
      [1, 4],
      [6, 11],
    ]);
    const out = new Float64Array(4);
    assert.equal(bitmap.claim(out, { maxBytes: 5 * G - 1 }), 2);
    assert.deepEqual([...out], [G, 3 * G, 6 * G, G]);
    assert.deepEqual(runsOf(bitmap), [[7 * G, 3.5 * G]]);
    assert.equal(bitmap.claim(out, { maxBytes: 1 }), 1);
    assert.deepEqual([...out.subarray(0, 2)], [7 * G, G]);
    assert.equal(bitmap.claim(out, { maxBytes: SIZE }), 1);
    assert.equal(bitmap.claim(out, { maxBytes: SIZE }), 0);
  },
  'a claim takes only granules that lie wholly between from and end'(create) {
    const bitmap = bitmapWith(create, [[0, 11]]);
    const out = new Float64Array(4);
    assert.equal(bitmap.claim(out, { maxBytes: SIZE, from: G + 1, end: 4 * G - 1 }), 1);
    assert.deepEqual([...out.subarray(0, 2)], [2 * G, G]);
    assert.equal(bitmap.claim(out, { maxBytes: SIZE, from: 9 * G }), 1);
    assert.deepEqual([...out.subarray(0, 2)], [9 * G, 1.5 * G]);
  },
  'a bitmap of no bytes is empty in every way'(create) {
    const bitmap = create({ size: 0, granularity: G });
    bitmap.setAll();
    assert.deepEqual([bitmap.count, bitmap.nextDirty(0), bitmap.nextZero(0)], [0, -1, -1]);
    assert.deepEqual([runsOf(bitmap), bitmap.split(2)], [[], [0, 0, 0]]);
    assert.equal(bitmap.serialize().length, 0);
  },
};
