import assert from 'node:assert/strict';
import { Arena, Bitmap } from 'lacuna/bitmap';
import { describe, it } from 'vitest';
import { fillArena } from '../support/full-arena.js';
import { stepsOr } from '../support/long-run.js';
import { Model, type Operation } from '../unit/bitmap/model.js';
import { Random } from '../unit/bitmap/random.js';

interface Subject {
  bitmap: Bitmap;
  model: Model;
}

const STEPS = stepsOr(400);
const OPERATIONS: Operation[] = ['merge', 'subtract', 'intersect', 'xor'];

/** Blocks that a full arena may still have. */
const SPARE = [0, 0, 1, 3, 20];

/** Granules and granularities so chosen that trees of one, two and three levels and odd tails occur. */
const SHAPES = [
  { granules: 1, granularities: [512, 1024, 4096] },
  { granules: 100, granularities: [512, 512, 2048] },
  { granules: 4096, granularities: [65536, 65536, 65536] },
  { granules: 9000, granularities: [512, 1024, 32768] },
  { granules: 70000, granularities: [65536, 65536, 131072] },
  { granules: 300000, granularities: [512, 512, 4096] },
];

for (const variant of ['simd', 'scalar'] as const) {
  describe(`${variant} kernels do what the model does`, () => {
    for (const { granules, granularities } of SHAPES) {
      it(`with about ${granules} granules of ${granularities.join(', ')} bytes`, () => {
        const random = new Random(Random.seed());
        const arena = Arena.create({ variant, maximumBytes: 2 ** 28 });
        const idle = arena.usedBytes;
        const trace: string[] = [];
        try {
          run(random, arena, granules * granularities[0], granularities, trace);
          assert.equal(arena.usedBytes, idle, 'everything was given back');
        } catch (error) {
          const steps = trace.slice(-12).join('\n  ');
          throw new Error(`LACUNA_SEED=${random.seed}, after\n  ${steps}`, { cause: error });
        }
      });
    }
  });
}

describe('operations that find the arena full change nothing', () => {
  it.each(SHAPES)('with about $granules granules', ({ granules, granularities }) => {
    const random = new Random(Random.seed());
    const arena = Arena.create({ maximumBytes: 2 ** 20 });
    const idle = arena.usedBytes;
    const size = granules * granularities[0];
    const subjects = granularities.map((granularity) => ({
      bitmap: new Bitmap({ size, granularity, arena }),
      model: new Model(size, granularity),
    }));
    let failures = 0;
    for (let step = 0; step < STEPS / 2; step++) {
      const release = random.fraction() < 0.5 ? fillArena(arena, random.pick(SPARE)) : () => {};
      const subject = random.pick(subjects);
      try {
        random.pick(ACTIONS)(subject, random, subjects);
      } catch (error) {
        if ((error as { code?: string }).code !== 'ERR_ARENA_FULL') throw error;
        failures++;
      }
      const seed = `LACUNA_SEED=${random.seed}, step ${step}`;
      for (const { bitmap, model } of subjects) {
        assert.equal(bitmap.count, model.count, seed);
        if (step % 16 === 0) assert.deepEqual(flat(bitmap.ranges()), model.runs(), seed);
      }
      release();
    }
    assert.ok(granules < 4096 || failures > 0, 'some operations failed');
    for (const { bitmap } of subjects) bitmap.free();
    assert.equal(arena.usedBytes, idle);
  });
});

function run(
  random: Random,
  arena: Arena,
  about: number,
  granularities: number[],
  trace: string[],
): void {
  const size = Math.max(1, about + random.pick([0, 0, 1, -1, 511, -511, 4095]));
  const subjects = granularities.map((granularity) => ({
    bitmap: new Bitmap({ size, granularity, arena }),
    model: new Model(size, granularity),
  }));
  const steps = about > 2 ** 26 ? STEPS / 4 : STEPS;
  for (let step = 0; step < steps; step++) {
    const subject = random.pick(subjects);
    const action = random.pick(ACTIONS);
    trace.push(`${step}: bitmap ${subjects.indexOf(subject)} ${action.name}`);
    action(subject, random, subjects);
    assert.equal(subject.bitmap.count, subject.model.count, 'count');
    if (step % 8 === 0) checkAll(subject);
  }
  for (const subject of subjects) checkAll(subject);
  for (const { bitmap } of subjects) bitmap.free();
}

function checkAll({ bitmap, model }: Subject): void {
  assert.equal(bitmap.size, model.size, 'size');
  assert.equal(bitmap.dirtyBytes, model.dirtyBytes, 'dirtyBytes');
  assert.deepEqual(bitmap.serialize(), model.serialize(), 'serialize');
  assert.equal(bitmap.digest(), model.digest(), 'digest');
  assert.deepEqual(flat(bitmap.ranges()), model.runs(), 'ranges');
}

function flat(ranges: Iterable<{ offset: number; length: number }>): number[] {
  return [...ranges].flatMap(({ offset, length }) => [offset, length]);
}

/** Mostly short, sometimes long, sometimes exactly some granules. */
function range(random: Random, { size, granularity }: Model): [offset: number, length: number] {
  let offset = random.between(0, size);
  if (random.fraction() < 0.3) offset -= offset % granularity;
  const scale = random.pick([0, 1, granularity, granularity * 100, granularity * 5000, size]);
  let length = random.between(0, Math.min(scale, size - offset));
  if (random.fraction() < 0.3) length -= length % granularity;
  if (random.fraction() < 0.1) length = size - offset;
  return [offset, length];
}

type Action = (subject: Subject, random: Random, all: Subject[]) => void;

const ACTIONS: Action[] = [
  function set({ bitmap, model }, random) {
    for (let i = random.pick([1, 1, 10, 200]); i > 0; i--) {
      const at = range(random, model);
      bitmap.set(...at);
      model.set(...at);
    }
  },
  function reset({ bitmap, model }, random) {
    for (let i = random.pick([1, 1, 10, 200]); i > 0; i--) {
      const at = range(random, model);
      bitmap.reset(...at);
      model.reset(...at);
    }
  },
  function sequence({ bitmap, model }, random) {
    const { granularity } = model;
    const step = random.pick([granularity, -granularity]);
    let at = random.between(0, model.size);
    for (let i = random.between(1, 300); i > 0 && at >= 0 && at < model.size; i--, at += step) {
      bitmap.set(at, 1);
      model.set(at, 1);
    }
  },
  function setAll({ bitmap, model }, random) {
    if (random.fraction() < 0.7) return;
    bitmap.setAll();
    model.set(0, model.size);
  },
  function resetAll({ bitmap, model }, random) {
    if (random.fraction() < 0.5) return;
    bitmap.resetAll();
    model.reset(0, model.size);
  },
  function setMany({ bitmap, model }, random) {
    if (model.size === 0) return;
    const offsets = Array.from({ length: random.between(0, 3000) }, () =>
      random.between(0, model.size - 1),
    );
    bitmap.setMany(random.fraction() < 0.5 ? offsets : Float64Array.from(offsets));
    for (const offset of offsets) model.set(offset, 1);
  },
  function setRanges({ bitmap, model }, random) {
    const pairs = Array.from({ length: random.between(0, 30) }, () => range(random, model));
    bitmap.setRanges(pairs.flat());
    for (const pair of pairs) model.set(...pair);
  },
  function ask({ bitmap, model }, random) {
    const [offset, length] = range(random, model);
    const end = random.pick([offset + length, model.size, Number.MAX_SAFE_INTEGER]);
    assert.equal(bitmap.nextDirty(offset, end), model.next(offset, end, true), 'nextDirty');
    assert.equal(bitmap.nextZero(offset, end), model.next(offset, end, false), 'nextZero');
    assert.equal(bitmap.countIn(offset, length), model.countIn(offset, length), 'countIn');
    if (offset < model.size) assert.equal(bitmap.get(offset), model.get(offset), 'get');
    assert.deepEqual(flat(bitmap.ranges(offset, end)), model.runs(offset, end), 'ranges');
    const maxLength = random.pick([1, length + 1, Number.MAX_SAFE_INTEGER]);
    const area = model.runs(offset, end).slice(0, 2);
    if (area.length > 0) area[1] = Math.min(area[1], maxLength);
    const found = bitmap.nextDirtyArea(offset, end, maxLength);
    assert.deepEqual(found === null ? [] : flat([found]), area, 'nextDirtyArea');
    if (length === 0) return;
    const dirty = model.get(offset);
    const change = model.next(offset, offset + length, !dirty);
    const same = change < 0 ? length : change - offset;
    assert.deepEqual(bitmap.status(offset, length), { dirty, length: same }, 'status');
  },
  function readRanges({ bitmap, model }, random) {
    const out = new Float64Array(random.pick([2, 3, 64, 6000]));
    const [offset, length] = range(random, model);
    const count = bitmap.readRanges(offset, offset + length, out);
    const expected = model.runs(offset, offset + length).slice(0, (out.length >> 1) * 2);
    assert.deepEqual([...out.subarray(0, count * 2)], expected);
  },
  function split({ bitmap, model }, random) {
    const parts = random.between(1, 9);
    const cuts = bitmap.split(parts);
    const shares = cuts.slice(1).map((cut, i) => {
      assert.ok(cut >= cuts[i], 'cuts are in order');
      return model
        .runs(cuts[i], cut)
        .reduce((sum, n, k) => (k % 2 ? sum + Math.ceil(n / model.granularity) : sum), 0);
    });
    assert.deepEqual([cuts[0], cuts[parts]], [0, model.size]);
    assert.ok(Math.max(...shares) - Math.min(...shares) <= 1, `shares ${shares}`);
  },
  function combine({ bitmap, model }, random, all) {
    const other = random.pick(all);
    const operation = random.pick(OPERATIONS);
    if (other.model.size !== model.size) {
      assert.throws(() => bitmap[operation](other.bitmap), { code: 'ERR_BITMAP_MISMATCH' });
      return;
    }
    const before = other.bitmap.digest();
    bitmap[operation](other.bitmap);
    model.combine(other.model, operation);
    if (other.bitmap !== bitmap) assert.equal(other.bitmap.digest(), before, 'source unchanged');
  },
  function snapshot(subject, random, all) {
    const same = all.filter(({ model }) => model.granularity === subject.model.granularity);
    const target = random.pick(same);
    const copy = subject.bitmap.snapshot();
    const model = subject.model.copy();
    target.bitmap.free();
    target.bitmap = copy;
    target.model = model;
  },
  function resize({ bitmap, model }, random) {
    if (random.fraction() < 0.8) return;
    const size = random.pick([0, 1, model.size >> 1, model.size + 1, model.size * 2 + 77, 5e6]);
    if (size > 2 ** 28) return;
    bitmap.resize(size);
    model.resize(size);
  },
  function makeEqualSizes({ bitmap, model }, _random, all) {
    for (const other of all) {
      other.bitmap.resize(model.size);
      other.model.resize(model.size);
    }
    assert.equal(bitmap.size, model.size);
  },
  function exchange({ bitmap, model }, random) {
    const unit = model.granularity * 64;
    const words = Math.ceil(model.size / unit);
    const from = random.between(0, words);
    const to = random.between(from, words);
    const bytes = model.serialize().subarray(from * 8, to * 8);
    const length = Math.min(to * unit, model.size) - Math.min(from * unit, model.size);
    const offset = Math.min(from * unit, model.size);
    assert.deepEqual(bitmap.serialize(offset, length), bytes.slice(), 'serialize a part');
    const other = new Model(model.size, model.granularity);
    for (let i = random.pick([0, 1, 50, 5000]); i > 0; i--) other.set(...range(random, other));
    if (from === words) return;
    bitmap.deserialize(other.serialize().subarray(from * 8, to * 8), offset);
    model.bits.set(other.bits.subarray(from * 64, to * 64), from * 64);
  },
  function claim({ bitmap, model }, random) {
    const [offset, length] = range(random, model);
    const out = new Float64Array(random.pick([2, 20, 3000]));
    const maxBytes = random.pick([0, model.granularity * 7 + 1, model.size * 2]);
    const end = random.pick([offset + length, model.size]);
    const count = bitmap.claim(out, { maxBytes, from: offset, end });
    const expected = model.claim(out.length >> 1, maxBytes, offset, end);
    assert.deepEqual([...out.subarray(0, count * 2)], expected);
  },
];
