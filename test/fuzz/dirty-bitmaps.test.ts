import assert from 'node:assert/strict';
import {
  Arena,
  Bitmap,
  type BitmapAction,
  type BitmapUse,
  DirtyBitmaps,
  type StoredBitmap,
} from 'lacuna/bitmap';
import { describe, it } from 'vitest';
import { fillArena } from '../support/full-arena.js';
import { stepsOr } from '../support/long-run.js';
import { DirtyModel } from '../unit/bitmap/dirty-model.js';
import { Model } from '../unit/bitmap/model.js';
import { Random } from '../unit/bitmap/random.js';

const STEPS = stepsOr(8000);
const NAMES = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
const KINDS = [
  ...(['add', 'remove', 'clear', 'enable', 'disable', 'merge'] as const),
  ...(['freeze', 'freeze', 'abdicate', 'reclaim', 'drop'] as const),
];

/** Blocks that a full arena may still have. */
const SPARE = [0, 0, 1, 2, 3, 5, 9, 20];

const SHAPES = [
  { granules: 3, granularities: [512, 1024, 65536] },
  { granules: 700, granularities: [512, 4096, 32768] },
  { granules: 700, granularities: [65536] },
  { granules: 9000, granularities: [4096, 512, 2 ** 20] },
];

/** The real bitmaps and the model, which are told the same. */
class Pair {
  readonly real: DirtyBitmaps;
  readonly model: DirtyModel;
  readonly uses: { name: string; use: BitmapUse }[] = [];
  readonly tally = { done: 0, refused: 0, full: 0 };

  constructor(
    readonly random: Random,
    readonly arena: Arena,
    size: number,
    readonly granularities: number[],
  ) {
    const [granularity] = granularities;
    this.real = new DirtyBitmaps({ size, granularity, arena });
    this.model = new DirtyModel(size, granularity);
  }

  get name(): string {
    return this.random.pick(NAMES);
  }

  /** Does the same to both, which must do it or refuse it alike. */
  both(real: () => void, model: () => void): void {
    const ours = codeOf(real);
    if (ours === 'ERR_ARENA_FULL') {
      this.tally.full++;
      return;
    }
    assert.equal(ours, codeOf(model));
    this.tally[ours === 'done' ? 'done' : 'refused']++;
  }

  range(): [offset: number, length: number] {
    const { size } = this.model;
    if (size === 0) return [0, 0];
    const offset = this.random.between(0, size - 1);
    const most = this.random.pick([1, 511, 5000, 70000, size]);
    return [offset, this.random.between(0, Math.min(most, size - offset))];
  }

  action(): BitmapAction {
    const { name } = this;
    const type = this.random.pick(KINDS);
    if (type === 'merge') {
      const sources = Array.from({ length: this.random.between(0, 3) }, () => this.name);
      return { type, target: name, sources };
    }
    if (type !== 'add') return { type, name };
    const granularity = this.random.pick(this.granularities);
    const persistent = this.random.fraction() < 0.3;
    return { type, name, granularity, persistent, disabled: this.random.fraction() < 0.3 };
  }

  check(name: string): void {
    const bitmap = this.model.bitmaps.get(name);
    assert.equal(this.real.has(name), bitmap !== undefined, `has ${name}`);
    if (bitmap === undefined || bitmap.inconsistent) return;
    const real = this.real.get(name);
    assert.deepEqual(real.serialize(), bitmap.dirty.serialize(), `content of ${name}`);
    assert.equal(real.dirtyBytes, bitmap.dirty.dirtyBytes);
  }
}

type Action = (pair: Pair, random: Random) => void;

const ACTIONS: Record<string, Action> = {
  record(pair) {
    const [offset, length] = pair.range();
    pair.both(
      () => pair.real.record(offset, length),
      () => pair.model.record(offset, length),
    );
  },
  recordMany(pair, random) {
    const ranges = Array.from({ length: random.between(1, 5) }, () => pair.range());
    pair.both(
      () => pair.real.recordMany(ranges.flat()),
      () => {
        for (const [offset, length] of ranges) pair.model.record(offset, length);
      },
    );
  },
  command(pair) {
    const action = pair.action();
    pair.both(
      () => command(pair.real, action),
      () => pair.model.perform(action),
    );
  },
  transaction(pair, random) {
    const actions = Array.from({ length: random.between(1, 6) }, () => pair.action());
    pair.both(
      () => pair.real.transaction(actions),
      () => pair.model.transaction(actions),
    );
  },
  successor(pair, random) {
    const { name } = pair;
    const method = random.pick(['createSuccessor', 'abdicate', 'reclaim'] as const);
    pair.both(
      () => pair.real[method](name),
      () => pair.model[method](name),
    );
  },
  acquire(pair) {
    const { name } = pair;
    pair.both(
      () => pair.uses.push({ name, use: pair.real.acquire(name, 'fuzz') }),
      () => pair.model.acquire(name),
    );
  },
  release(pair, random) {
    if (pair.uses.length === 0) return;
    const [{ name, use }] = pair.uses.splice(random.between(0, pair.uses.length - 1), 1);
    use.release();
    use.release();
    pair.model.bitmaps.get(name)!.users--;
  },
  mergeFromElsewhere(pair, random) {
    const granularity = random.pick(pair.granularities);
    const size = pair.model.size + random.pick([0, 0, 0, 1]);
    const { name, arena } = pair;
    const [offset, length] = pair.range();
    const other = new DirtyBitmaps({ size, granularity, arena });
    other.add({ name: 'x' });
    other.record(offset, length);
    const dirty = new Model(size, granularity);
    dirty.set(offset, length);
    const loose = other.get('x').snapshot();
    pair.both(
      () => pair.real.merge(name, [random.pick([{ bitmaps: other, name: 'x' }, loose])]),
      () => {
        const target = pair.model.find(name, 'busy', 'readOnly', 'inconsistent');
        if (size !== pair.model.size) throw { code: 'ERR_BITMAP_MISMATCH' };
        target.dirty.combine(dirty, 'merge');
      },
    );
    loose.free();
    other.free();
  },
  register(pair, random) {
    const { name, arena } = pair;
    const granularity = random.pick(pair.granularities);
    const dirty = new Model(pair.model.size, granularity);
    dirty.set(...pair.range());
    const [enabled, inconsistent] = [random.fraction() < 0.5, random.fraction() < 0.2];
    const stored = store(name, dirty, arena, { recording: enabled, inconsistent });
    pair.both(
      () => pair.real.register(stored),
      () => {
        pair.model.add({ name, granularity, persistent: true, disabled: !enabled || inconsistent });
        Object.assign(pair.model.bitmaps.get(name)!, inconsistent ? { inconsistent } : { dirty });
      },
    );
  },
  readOnly(pair, random) {
    const { name } = pair;
    const value = random.fraction() < 0.3;
    pair.both(
      () => pair.real.setReadOnly(name, value),
      () => {
        pair.model.find(name).readOnly = value;
      },
    );
  },
  resize(pair, random) {
    if (random.fraction() < 0.8) return;
    const size = Math.max(0, pair.model.size + random.between(-3000, 3000));
    pair.both(
      () => pair.real.resize(size),
      () => pair.model.resize(size),
    );
  },
  look(pair) {
    pair.check(pair.name);
  },
  list(pair) {
    const known = pair.real.list();
    const expected = pair.model.list();
    for (const [i, info] of known.entries()) {
      if (info.dirtyBytes === null) expected[i].dirtyBytes = null as never;
    }
    assert.deepEqual(known, expected);
  },
};

/** What is done often comes often. */
const SCHEDULE = [
  ...['record', 'record', 'record', 'record', 'recordMany', 'command', 'command', 'command'],
  ...['transaction', 'transaction', 'successor', 'acquire', 'release', 'release', 'look', 'look'],
  ...['mergeFromElsewhere', 'register', 'readOnly', 'readOnly', 'resize', 'list'],
];

describe('dirty bitmaps do what the model does', () => {
  it.each(SHAPES)('with $granules granules of $granularities bytes', (shape) => {
    const { granules, granularities } = shape;
    const random = new Random(Random.seed());
    const arena = Arena.create({ maximumBytes: 2 ** 26 });
    const idle = arena.usedBytes;
    const trace: string[] = [];
    const size = granules * granularities[0] + random.pick([0, 1, 300, -1]);
    const pair = new Pair(random, arena, size, granularities);
    try {
      for (let step = 0; step < STEPS; step++) {
        const kind = random.pick(SCHEDULE);
        trace.push(`${step}: ${kind}`);
        ACTIONS[kind](pair, random);
        if (step % 32 === 0) for (const name of NAMES) pair.check(name);
      }
      for (const name of NAMES) pair.check(name);
      assert.ok(pair.tally.done > STEPS / 5 && pair.tally.refused > STEPS / 20, 'a fair mix');
      pair.real.free();
      assert.equal(arena.usedBytes, idle, 'everything was given back');
    } catch (cause) {
      const message = `LACUNA_SEED=${random.seed}, after ${trace.slice(-12).join(', ')}`;
      throw new Error(message, { cause });
    }
  });
});

describe('what finds the arena full changes nothing', () => {
  it.each(SHAPES.slice(1))('with $granules granules of $granularities bytes', (shape) => {
    const random = new Random(Random.seed());
    const arena = Arena.create({ maximumBytes: 2 ** 20 });
    const idle = arena.usedBytes;
    const size = shape.granules * shape.granularities[0] + 1;
    const pair = new Pair(random, arena, size, shape.granularities);
    // These make bitmaps of their own, which may find no room either.
    const left = ['mergeFromElsewhere', 'register', 'look', 'list'];
    const schedule = SCHEDULE.filter((kind) => !left.includes(kind));
    for (let step = 0; step < STEPS / 8; step++) {
      const kind = random.pick(schedule);
      const release = random.fraction() < 0.5 ? fillArena(arena, random.pick(SPARE)) : () => {};
      try {
        ACTIONS[kind](pair, random);
        release();
        ACTIONS.list(pair, random);
        for (const name of NAMES) pair.check(name);
      } catch (cause) {
        throw new Error(`LACUNA_SEED=${random.seed}, step ${step}: ${kind}`, { cause });
      }
    }
    assert.ok(pair.tally.full > 0, 'some failed');
    pair.real.free();
    assert.equal(arena.usedBytes, idle);
  });
});

function command(bitmaps: DirtyBitmaps, action: BitmapAction): void {
  if (action.type === 'add') {
    const { type: _, ...options } = action;
    bitmaps.add(options);
  } else if (action.type === 'merge') bitmaps.merge(action.target, action.sources);
  else if (action.type === 'freeze') bitmaps.createSuccessor(action.name);
  else if (action.type === 'drop') bitmaps.transaction([action]);
  else bitmaps[action.type](action.name);
}

function codeOf(call: () => void): string {
  try {
    call();
    return 'done';
  } catch (error) {
    if (error instanceof TypeError) return 'TypeError';
    const { code } = error as { code?: string };
    if (code === undefined) throw error;
    return code;
  }
}

function store(
  name: string,
  dirty: Model,
  arena: Arena,
  states: { recording: boolean; inconsistent: boolean },
): StoredBitmap {
  const { size, granularity, dirtyBytes } = dirty;
  const bytes = dirty.serialize();
  const load = () => {
    const bitmap = new Bitmap({ size, granularity, arena });
    bitmap.deserialize(bytes);
    return bitmap;
  };
  return { name, granularity, ...states, readOnly: false, dirtyBytes, load };
}
