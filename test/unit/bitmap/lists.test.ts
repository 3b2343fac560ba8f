/** Parts of a bitmap with a few runs each: what they take, and that nobody can tell how they are held. */
import assert from 'node:assert/strict';
import { Arena, Bitmap } from 'lacuna/bitmap';
import { describe, it } from 'vitest';
import { Model, type Operation } from './model.js';
import { Random } from './random.js';

const G = 512;
const LEAF = 4096 * G;
const ROUNDS = 300;

/** A bitmap and its model, whose leaves have about as many runs as a list takes. */
class Pair {
  readonly bitmap: Bitmap;
  readonly model: Model;

  constructor(
    readonly random: Random,
    arena: Arena,
    readonly size: number,
  ) {
    this.bitmap = new Bitmap({ size, granularity: G, arena });
    this.model = new Model(size, G);
  }

  stroke(): void {
    const { random, size } = this;
    const widest = random.pick([1, 1, 20, 200, 3000]);
    const length = Math.min(size, random.between(1, widest) * G);
    const offset = random.between(0, (size - length) / G) * G;
    const paints = random.fraction() < 0.6;
    if (paints) this.bitmap.set(offset, length);
    else this.bitmap.reset(offset, length);
    if (paints) this.model.set(offset, length);
    else this.model.reset(offset, length);
  }

  combine(other: Pair, operation: Operation): void {
    this.bitmap[operation](other.bitmap);
    this.model.combine(other.model, operation);
  }

  check(): void {
    const { bitmap, model, random, size } = this;
    const seed = `LACUNA_SEED=${random.seed}`;
    const runs = model.runs();
    const found = [...bitmap.ranges()].flatMap(({ offset, length }) => [offset, length]);
    assert.deepEqual(found, runs, seed);
    assert.equal(bitmap.count, model.count, seed);
    const at = random.between(0, size - 1);
    assert.equal(bitmap.get(at), model.get(at), seed);
    assert.equal(bitmap.nextDirty(at), model.next(at, size, true), seed);
    assert.equal(bitmap.nextZero(at), model.next(at, size, false), seed);
    const length = random.between(0, size - at);
    assert.equal(bitmap.countIn(at, length), model.countIn(at, length), seed);
    assert.deepEqual(Buffer.from(bitmap.serialize(0, size)), Buffer.from(model.serialize()), seed);
  }
}

describe.each(['simd', 'scalar'] as const)('a bitmap of a few runs, %s kernels', (variant) => {
  it('is what a model of it is, whatever is done to it', () => {
    const random = new Random(Random.seed());
    const arena = Arena.create({ variant, maximumBytes: 2 ** 22 });
    const idle = arena.usedBytes;
    for (let round = 0; round < ROUNDS; round++) {
      const size = LEAF * random.pick([1, 1, 3]) - random.pick([0, G, 37 * G]);
      const [a, b] = [new Pair(random, arena, size), new Pair(random, arena, size)];
      for (let i = random.between(1, 60); i > 0; i--) random.pick([a, b]).stroke();
      const copy = a.bitmap.snapshot();
      const before = a.bitmap.digest();
      for (let i = random.between(0, 5); i > 0; i--) a.stroke();
      assert.equal(copy.digest(), before, `LACUNA_SEED=${random.seed}`);
      a.check();
      a.combine(b, random.pick<Operation>(['merge', 'subtract', 'intersect', 'xor']));
      a.check();
      b.check();
      // Once more after what the serialization says of it.
      const again = new Bitmap({ size, granularity: G, arena });
      again.deserialize(a.bitmap.serialize(0, size));
      assert.equal(again.digest(), a.bitmap.digest(), `LACUNA_SEED=${random.seed}`);
      for (const each of [copy, again, a.bitmap, b.bitmap]) each.free();
      assert.equal(arena.usedBytes, idle, `LACUNA_SEED=${random.seed}`);
    }
  });
});

describe('a bitmap with a few runs in every leaf', () => {
  const LEAVES = 4096;

  it.each([
    [1, 0],
    [2, 0],
    [3, 64],
    [16, 64],
    [17, 512],
  ])('with %i, takes %i bytes for each', (runs, bytes) => {
    const arena = Arena.create({ maximumBytes: 2 ** 24 });
    const idle = arena.usedBytes;
    const bitmap = new Bitmap({ size: LEAVES * LEAF, granularity: G, arena });
    for (let i = 0; i < LEAVES * runs; i++) {
      const offset = Math.floor(i / runs) * LEAF + (i % runs) * 200 * G;
      bitmap.set(offset, 3 * G);
    }
    assert.equal(bitmap.count, LEAVES * runs * 3);
    const used = arena.usedBytes - idle - LEAVES * bytes;
    // The nodes above, one slot of 8 bytes for each leaf, and some spare ones.
    assert.ok(used >= 0 && used < LEAVES * 10 + 16384, `${used} bytes more`);
    bitmap.free();
    assert.equal(arena.usedBytes, idle);
  });

  it('is a leaf where the arena has no room for a list', () => {
    const arena = Arena.create({ maximumBytes: 2 ** 20 });
    const bitmap = new Bitmap({ size: 2 * LEAF, granularity: G, arena });
    for (const at of [0, 10, 4096, 4106]) bitmap.set(at * G, G);
    const blocks: { free(): void }[] = [];
    assert.throws(
      () => {
        for (;;) blocks.push(arena.allocate(64));
      },
      { code: 'ERR_ARENA_FULL' },
    );
    // The bitmap has spare nodes still.
    bitmap.set(20 * G, G);
    assert.deepEqual(
      [...bitmap.ranges(0, LEAF)],
      [0, 10, 20].map((at) => ({ offset: at * G, length: G })),
    );
    for (const block of blocks) block.free();
    bitmap.free();
  });
});
