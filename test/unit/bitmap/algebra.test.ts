import assert from 'node:assert/strict';
import { Arena, Bitmap } from 'lacuna/bitmap';
import { describe, it } from 'vitest';
import { Model, type Operation } from './model.js';

const G = 512;
const LEAF = 4096 * G;
/** A full node, a few leaves, and an end inside a granule. */
const SIZE = 64 * LEAF + 5 * LEAF + 100 * G + 7;
const OPERATIONS: Operation[] = ['merge', 'subtract', 'intersect', 'xor'];

/** One for each state that a slot can be in, at every level. */
const CONTENTS: Record<string, (set: (offset: number, length: number) => void) => void> = {
  empty: () => {},
  full: (set) => set(0, SIZE),
  runs: (set) => {
    for (let at = 0; at + LEAF < SIZE; at += LEAF) set(at + 100 * G, 300 * G);
  },
  otherRuns: (set) => {
    for (let at = 0; at + LEAF < SIZE; at += LEAF) set(at + 200 * G, 1700 * G);
  },
  scattered: (set) => {
    for (let at = 0; at < SIZE; at += 97 * G) set(at, 5 * G > SIZE - at ? 1 : 5 * G);
  },
  leaves: (set) => {
    for (let at = 0; at + LEAF < SIZE; at += 2 * LEAF) set(at, LEAF);
  },
  node: (set) => set(0, 64 * LEAF),
};

function make(arena: Arena, content: string, granularity: number): [Bitmap, Model] {
  const bitmap = new Bitmap({ size: SIZE, granularity, arena });
  const model = new Model(SIZE, granularity);
  CONTENTS[content]((offset, length) => {
    bitmap.set(offset, length);
    model.set(offset, length);
  });
  return [bitmap, model];
}

function same(bitmap: Bitmap, model: Model): boolean {
  return Buffer.compare(bitmap.serialize(), model.serialize()) === 0;
}

const names = Object.keys(CONTENTS);
const pairs = names.flatMap((left) => names.map((right) => [left, right] as const));

describe.each(['simd', 'scalar'] as const)('with %s kernels', (variant) => {
  const arena = Arena.create({ variant, maximumBytes: 2 ** 26 });
  const idle = arena.usedBytes;

  it.each(pairs)('%s and %s combine as sets do', (left, right) => {
    for (const operation of OPERATIONS) {
      const [bitmap, model] = make(arena, left, G);
      const [other, otherModel] = make(arena, right, G);
      const before = other.digest();
      bitmap[operation](other);
      model.combine(otherModel, operation);
      assert.ok(same(bitmap, model), operation);
      assert.equal(bitmap.count, model.count, operation);
      assert.equal(other.digest(), before, 'the source is unchanged');
      bitmap.free();
      other.free();
      assert.equal(arena.usedBytes, idle);
    }
  });

  it.each([
    [G, 8 * G],
    [8 * G, G],
    [G, LEAF * 2],
    [LEAF * 2, G],
  ])('granularity %i and %i combine exactly, rounded outward', (mine, its) => {
    for (const [left, right] of pairs) {
      const [bitmap, model] = make(arena, left, mine);
      const [other, otherModel] = make(arena, right, its);
      for (const operation of OPERATIONS) {
        const target = bitmap.snapshot();
        const expected = model.copy();
        target[operation](other);
        expected.combine(otherModel, operation);
        assert.deepEqual(target.serialize(), expected.serialize(), `${left} ${operation} ${right}`);
        target.free();
      }
      bitmap.free();
      other.free();
    }
    assert.equal(arena.usedBytes, idle);
  });
});
