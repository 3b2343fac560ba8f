/** Whatever finds the arena full, at whichever of its steps, leaves everything as it was. */
import assert from 'node:assert/strict';
import { Arena, Bitmap, type BitmapAction, DirtyBitmaps } from 'lacuna/bitmap';
import { LacunaError } from 'lacuna/errors';
import { describe, it } from 'vitest';
import { fillArena } from '../../support/full-arena.js';

const G = 512;
const SIZE = 9000 * G + 1;
/** More blocks than any operation here takes. */
const MOST_SPARE = 200;

/** Offsets all over the disk: each one needs a leaf of its own, or a place in one. */
const SCATTERED = Array.from({ length: 300 }, (_, i) => ((i * 7919) % 9000) * G);

interface Subject {
  arena: Arena;
  state(): unknown;
  free(): void;
}

/** Repeats `operation` with a block more in the arena each time, until there is room for it. */
function tryUntilRoom<T extends Subject>(make: () => T, operation: (subject: T) => void): void {
  let failures = 0;
  for (let spare = 0; spare < MOST_SPARE; spare++) {
    const subject = make();
    const before = subject.state();
    const release = fillArena(subject.arena, spare);
    let failure: unknown;
    try {
      operation(subject);
    } catch (error) {
      failure = error;
    }
    release();
    if (failure === undefined) {
      assert.ok(failures > 0, 'it has failed before');
      return;
    }
    failures++;
    assert.ok(failure instanceof LacunaError && failure.code === 'ERR_ARENA_FULL', `${failure}`);
    assert.deepEqual(subject.state(), before, `with ${spare} blocks`);
    operation(subject);
    subject.free();
  }
  assert.fail('it never found enough room');
}

interface OneBitmap extends Subject {
  bitmap: Bitmap;
  other: Bitmap;
  elsewhere: Bitmap;
}

function oneBitmap(): OneBitmap {
  const arena = Arena.create({ maximumBytes: 2 ** 20 });
  const bitmap = new Bitmap({ size: SIZE, granularity: G, arena });
  bitmap.set(5 * G, 700 * G);
  for (let at = 1000; at < 1100; at += 2) bitmap.set(at * G, 1);
  const other = new Bitmap({ size: SIZE, granularity: 2 * G, arena });
  const elsewhere = new Bitmap({ size: SIZE, granularity: G, arena: Arena.create() });
  for (const offset of SCATTERED) {
    other.set(offset, 1);
    elsewhere.set(offset, 1);
  }
  const shared = bitmap.snapshot();
  const state = () => [bitmap.size, bitmap.digest(), other.digest(), arena.usedBytes];
  const free = () => {
    for (const each of [bitmap, other, elsewhere, shared]) each.free();
  };
  return { arena, bitmap, other, elsewhere, state, free };
}

const ON_ONE: Record<string, (subject: OneBitmap) => unknown> = {
  set: ({ bitmap }) => bitmap.set(2000 * G + 1, 3000 * G),
  reset: ({ bitmap }) => bitmap.reset(100 * G, 101 * G),
  setMany: ({ bitmap }) => bitmap.setMany(SCATTERED),
  setRanges: ({ bitmap }) => bitmap.setRanges(SCATTERED.flatMap((offset) => [offset, 1])),
  merge: ({ bitmap, other }) => bitmap.merge(other),
  subtract: ({ bitmap, other }) => bitmap.subtract(other),
  intersect: ({ bitmap, other }) => bitmap.intersect(other),
  xor: ({ bitmap, other }) => bitmap.xor(other),
  'merge from another arena': ({ bitmap, elsewhere }) => bitmap.merge(elsewhere),
  snapshot: ({ bitmap }) => bitmap.snapshot(),
  'resize to more': ({ bitmap }) => bitmap.resize(SIZE * 500),
  'resize to less': ({ bitmap }) => bitmap.resize(400 * G),
  deserialize: ({ bitmap, elsewhere }) => bitmap.deserialize(elsewhere.serialize()),
  claim: ({ bitmap }) => bitmap.claim(new Float64Array(20), { maxBytes: 33 * G }),
  split: ({ bitmap }) => bitmap.split(3),
};

describe('a bitmap that finds the arena full stays as it was', () => {
  it.each(Object.keys(ON_ONE))('%s', (name) => tryUntilRoom(oneBitmap, ON_ONE[name]));

  it('setMany of what lies outside sets nothing of the rest', () => {
    const { bitmap, state } = oneBitmap();
    const before = state();
    assert.throws(() => bitmap.setMany([0, SIZE]), RangeError);
    assert.throws(() => bitmap.setRanges([0, G, SIZE - 1, 2]), RangeError);
    assert.deepEqual(state(), before);
  });
});

interface ManyBitmaps extends Subject {
  bitmaps: DirtyBitmaps;
}

function manyBitmaps(): ManyBitmaps {
  const arena = Arena.create({ maximumBytes: 2 ** 20 });
  const bitmaps = new DirtyBitmaps({ size: SIZE, granularity: G, arena });
  bitmaps.add({ name: 'a' });
  bitmaps.add({ name: 'b', granularity: 4096 });
  bitmaps.add({ name: 'idle', disabled: true });
  bitmaps.add({ name: 'held' });
  bitmaps.record(100 * G, 17 * G);
  bitmaps.get('a').count;
  bitmaps.add({ name: 'late' });
  bitmaps.createSuccessor('held');
  for (const offset of SCATTERED.slice(0, 20)) bitmaps.record(offset, 1);
  const state = () => {
    // Recording and looking go on, also with what the next look makes.
    for (let i = 0; i < 2; i++) {
      bitmaps.record(0, 1);
      bitmaps.list();
    }
    return [bitmaps.size, bitmaps.list(), digests(bitmaps)];
  };
  return { arena, bitmaps, state, free: () => bitmaps.free() };
}

function digests(bitmaps: DirtyBitmaps): string[] {
  return [...bitmaps].map((bitmap) => bitmap.digest());
}

const ACTIONS: BitmapAction[] = [
  { type: 'clear', name: 'a' },
  { type: 'merge', target: 'idle', sources: ['b', 'late'] },
  { type: 'remove', name: 'b' },
  { type: 'add', name: 'b' },
  { type: 'disable', name: 'late' },
  { type: 'enable', name: 'idle' },
];

const ON_MANY: Record<string, (subject: ManyBitmaps) => unknown> = {
  record: ({ bitmaps }) => bitmaps.record(2000 * G + 1, 3000 * G),
  recordMany: ({ bitmaps }) => bitmaps.recordMany(SCATTERED.flatMap((offset) => [offset, 1])),
  add: ({ bitmaps }) => bitmaps.add({ name: 'new', granularity: 8192 }),
  disable: ({ bitmaps }) => bitmaps.disable('b'),
  merge: ({ bitmaps }) => bitmaps.merge('idle', ['a', 'late', 'b']),
  transaction: ({ bitmaps }) => bitmaps.transaction(ACTIONS),
  createSuccessor: ({ bitmaps }) => bitmaps.createSuccessor('late'),
  reclaim: ({ bitmaps }) => bitmaps.reclaim('held'),
};

describe('dirty bitmaps that find the arena full stay as they were', () => {
  it.each(Object.keys(ON_MANY))('%s', (name) => tryUntilRoom(manyBitmaps, ON_MANY[name]));

  it.each([SIZE * 500, 400 * G])('resize to %i bytes', (size) => {
    const make = () => {
      const subject = manyBitmaps();
      subject.bitmaps.abdicate('held');
      return subject;
    };
    tryUntilRoom(make, ({ bitmaps }) => {
      bitmaps.resize(size);
      bitmaps.record(size - 1, 1);
    });
  });
});
