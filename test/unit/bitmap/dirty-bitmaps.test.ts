import assert from 'node:assert/strict';
import { Arena, Bitmap, DirtyBitmaps, type StoredBitmap } from 'lacuna/bitmap';
import { LacunaError } from 'lacuna/errors';
import { describe, it } from 'vitest';
import { Journal } from '#dist/bitmap/named/journal.js';

const G = 65536;
const SIZE = 100 * G + 1;

function make(): DirtyBitmaps {
  return new DirtyBitmaps({ size: SIZE });
}

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof LacunaError && error.code === code;
}

function offsets(bitmaps: DirtyBitmaps, name: string): number[] {
  return [...bitmaps.get(name).ranges()].map(({ offset }) => offset / G);
}

/** A stored bitmap with granule 7 dirty, and the number of times that it was loaded. */
function stored(
  states: Partial<StoredBitmap> = {},
  later = false,
): StoredBitmap & { loads: number } {
  const name = states.name ?? 'stored';
  const flags = { recording: false, inconsistent: false, readOnly: false, ...states };
  const self = { name, granularity: G, dirtyBytes: G, loads: 0, ...flags, load };
  return self;
  function load(): Bitmap | Promise<Bitmap> {
    self.loads++;
    const bits = new Bitmap({ size: SIZE, granularity: G });
    bits.set(7 * G, 1);
    return later ? new Promise((resolve) => setImmediate(resolve, bits)) : bits;
  }
}

/** What QEMU's commands refuse: one row for each command, one column for each state. */
const COMMANDS: Record<string, (bitmaps: DirtyBitmaps) => void> = {
  remove: (bitmaps) => bitmaps.remove('x'),
  clear: (bitmaps) => bitmaps.clear('x'),
  enable: (bitmaps) => bitmaps.enable('x'),
  disable: (bitmaps) => bitmaps.disable('x'),
  'merge into': (bitmaps) => bitmaps.merge('x', ['other']),
  'merge from': (bitmaps) => bitmaps.merge('other', ['x']),
  'merge from elsewhere': (bitmaps) => {
    const others = make();
    others.add({ name: 'y' });
    others.merge('y', [{ bitmaps, name: 'x' }]);
  },
  acquire: (bitmaps) => bitmaps.acquire('x', 'export').release(),
  createSuccessor: (bitmaps) => bitmaps.createSuccessor('x'),
  resize: (bitmaps) => bitmaps.resize(SIZE + G),
};
const STATES: Record<string, (bitmaps: DirtyBitmaps) => void> = {
  used: (bitmaps) => {
    bitmaps.acquire('x', 'backup');
  },
  succeeded: (bitmaps) => bitmaps.createSuccessor('x'),
  'read-only': (bitmaps) => bitmaps.setReadOnly('x', true),
  inconsistent: (bitmaps) => {
    bitmaps.remove('x');
    bitmaps.register(stored({ name: 'x', inconsistent: true }));
  },
};
const [BUSY, LOCKED, BROKEN] = ['BUSY', 'READONLY', 'INCONSISTENT'].map((it) => `ERR_BITMAP_${it}`);
const OK = 'done';
const TABLE: Record<string, Record<string, string>> = {
  remove: { used: BUSY, succeeded: BUSY, 'read-only': OK, inconsistent: OK },
  clear: { used: BUSY, succeeded: BUSY, 'read-only': LOCKED, inconsistent: BROKEN },
  enable: { used: BUSY, succeeded: BUSY, 'read-only': OK, inconsistent: BROKEN },
  disable: { used: BUSY, succeeded: BUSY, 'read-only': OK, inconsistent: BROKEN },
  'merge into': { used: BUSY, succeeded: BUSY, 'read-only': LOCKED, inconsistent: BROKEN },
  'merge from': { used: BUSY, succeeded: BUSY, 'read-only': OK, inconsistent: BROKEN },
  'merge from elsewhere': { used: BUSY, succeeded: BUSY, 'read-only': OK, inconsistent: BROKEN },
  acquire: { used: OK, succeeded: BUSY, 'read-only': OK, inconsistent: BROKEN },
  createSuccessor: { used: BUSY, succeeded: BUSY, 'read-only': OK, inconsistent: BROKEN },
  resize: { used: BUSY, succeeded: BUSY, 'read-only': LOCKED, inconsistent: BROKEN },
};
const CASES = Object.entries(TABLE).flatMap(([command, row]) =>
  Object.entries(row).map(([state, outcome]) => ({ command, state, outcome })),
);

describe('what is refused', () => {
  it.each(CASES)('$command of a bitmap that is $state: $outcome', ({ command, state, outcome }) => {
    const bitmaps = make();
    bitmaps.add({ name: 'x' });
    bitmaps.add({ name: 'other' });
    STATES[state](bitmaps);
    const before = bitmaps.list();
    if (outcome === OK) {
      COMMANDS[command](bitmaps);
      return;
    }
    assert.throws(() => COMMANDS[command](bitmaps), hasCode(outcome));
    assert.deepEqual(bitmaps.list(), before, 'nothing has changed');
  });

  it('names that are taken, unknown or too long', () => {
    const bitmaps = make();
    bitmaps.add({ name: 'x' });
    assert.throws(() => bitmaps.add({ name: 'x' }), hasCode('ERR_BITMAP_EXISTS'));
    assert.throws(() => bitmaps.register(stored({ name: 'x' })), hasCode('ERR_BITMAP_EXISTS'));
    assert.throws(() => bitmaps.get('y'), hasCode('ERR_BITMAP_UNKNOWN'));
    assert.throws(() => bitmaps.merge('x', ['y']), hasCode('ERR_BITMAP_UNKNOWN'));
    assert.throws(() => bitmaps.add({ name: '' }), RangeError);
    assert.throws(() => bitmaps.add({ name: 'ü'.repeat(512) }), RangeError);
    bitmaps.add({ name: `ü${'x'.repeat(1021)}` });
  });

  it('impossible granularities', () => {
    for (const granularity of [0, 256, 513, 2 ** 32, Number.NaN]) {
      assert.throws(() => make().add({ name: 'x', granularity }), RangeError);
      assert.throws(() => new DirtyBitmaps({ size: 1, granularity }), RangeError);
    }
  });

  it('sources of another size', () => {
    const bitmaps = make();
    bitmaps.add({ name: 'x' });
    const loose = new Bitmap({ size: SIZE - 1, granularity: G });
    assert.throws(() => bitmaps.merge('x', [loose]), hasCode('ERR_BITMAP_MISMATCH'));
  });

  it('removal of what its store would keep', () => {
    const bitmaps = make();
    bitmaps.register(stored({ readOnly: true }));
    assert.throws(() => bitmaps.remove('stored'), hasCode('ERR_BITMAP_READONLY'));
  });

  it('a write into what must not change, until it is disabled', () => {
    const bitmaps = make();
    bitmaps.add({ name: 'x' });
    bitmaps.setReadOnly('x', true);
    assert.throws(() => bitmaps.record(0, 1), hasCode('ERR_BITMAP_READONLY'));
    assert.throws(() => bitmaps.recordMany([0, 1]), hasCode('ERR_BITMAP_READONLY'));
    bitmaps.disable('x');
    bitmaps.record(0, 1);
    bitmaps.enable('x');
    assert.throws(() => bitmaps.record(0, 1), hasCode('ERR_BITMAP_READONLY'));
  });

  it('a write behind the end, whether somebody records or not', () => {
    const bitmaps = make();
    for (let i = 0; i < 2; i++) {
      assert.throws(() => bitmaps.record(SIZE, 1), RangeError);
      assert.throws(() => bitmaps.recordMany([0, 1, SIZE, 1]), RangeError);
      bitmaps.add({ name: `${i}` });
    }
  });

  it('a bitmap that was removed, to those who still hold its view', () => {
    const bitmaps = make();
    const view = bitmaps.add({ name: 'x' });
    bitmaps.remove('x');
    assert.throws(() => view.count, hasCode('ERR_BITMAP_UNKNOWN'));
  });
});

describe('the granularity of a new bitmap', () => {
  it.each([
    [undefined, 65536],
    [512, 4096],
    [4096, 4096],
    [16384, 16384],
    [2 ** 21, 65536],
  ])('with a cluster size of %s is %i', (clusterSize, granularity) => {
    const bitmaps = new DirtyBitmaps({ size: SIZE, clusterSize });
    assert.equal(bitmaps.add({ name: 'x' }).granularity, granularity);
  });
});

describe('users', () => {
  it('share a bitmap, which is busy until all have released it, and goes on recording', () => {
    const bitmaps = make();
    const view = bitmaps.add({ name: 'x' });
    const uses = [bitmaps.acquire('x', 'export 1'), bitmaps.acquire('x', 'export 2')];
    bitmaps.record(0, 1);
    assert.throws(() => bitmaps.remove('x'), /export 1, export 2/);
    uses[0].release();
    uses[0].release();
    assert.throws(() => bitmaps.remove('x'), /: export 2 uses/);
    assert.equal(uses[1].bitmap.count, 1);
    uses[1].release();
    assert.equal(view.info.busy, false);
    bitmaps.remove('x');
  });
});

describe('a successor', () => {
  it('records in the place of a bitmap that is frozen', () => {
    const bitmaps = make();
    bitmaps.add({ name: 'x' });
    bitmaps.record(0, 1);
    bitmaps.createSuccessor('x');
    bitmaps.record(G, 1);
    assert.deepEqual(offsets(bitmaps, 'x'), [0]);
    const { recording, busy } = bitmaps.get('x').info;
    assert.deepEqual([recording, busy], [true, true]);
  });

  it('replaces what was dirty before when its parent abdicates, and keeps name, states and users of the view', () => {
    const bitmaps = make();
    const view = bitmaps.add({ name: 'x', persistent: true });
    bitmaps.record(0, 1);
    bitmaps.createSuccessor('x');
    bitmaps.record(5 * G, 1);
    bitmaps.abdicate('x');
    bitmaps.record(9 * G, 1);
    assert.deepEqual(offsets(bitmaps, 'x'), [5, 9]);
    assert.equal(view.count, 2);
    assert.deepEqual([view.info.persistent, view.info.busy], [true, false]);
  });

  it('loses nothing when its parent reclaims it', () => {
    const bitmaps = make();
    bitmaps.add({ name: 'x' });
    bitmaps.record(0, 1);
    bitmaps.createSuccessor('x');
    bitmaps.record(5 * G, 1);
    bitmaps.reclaim('x');
    bitmaps.record(9 * G, 1);
    assert.deepEqual(offsets(bitmaps, 'x'), [0, 5, 9]);
  });

  it('of a disabled bitmap records nothing, before and after', () => {
    const bitmaps = make();
    bitmaps.add({ name: 'x', disabled: true });
    bitmaps.createSuccessor('x');
    bitmaps.record(0, 1);
    bitmaps.reclaim('x');
    bitmaps.record(0, 1);
    assert.equal(bitmaps.get('x').count, 0);
  });

  it('must exist to be abdicated to or reclaimed, and is not where the parent is read-only', () => {
    const bitmaps = make();
    bitmaps.add({ name: 'x', disabled: true });
    assert.throws(() => bitmaps.abdicate('x'), TypeError);
    assert.throws(() => bitmaps.reclaim('x'), TypeError);
    bitmaps.setReadOnly('x', true);
    bitmaps.createSuccessor('x');
    assert.throws(() => bitmaps.abdicate('x'), hasCode('ERR_BITMAP_READONLY'));
    bitmaps.reclaim('x');
  });
});

describe('a transaction that fails', () => {
  it('leaves names, their order, states, bits and what is not loaded as they were', () => {
    const bitmaps = make();
    const lazy = stored({ name: 'lazy', recording: true });
    for (const name of ['a', 'b', 'c']) bitmaps.add({ name, disabled: name === 'b' });
    bitmaps.register(lazy);
    bitmaps.record(3 * G, G);
    const before = bitmaps.list();
    const view = bitmaps.get('a');
    assert.throws(
      () =>
        bitmaps.transaction([
          { type: 'remove', name: 'a' },
          { type: 'add', name: 'a', granularity: 512 },
          { type: 'add', name: 'd' },
          { type: 'enable', name: 'b' },
          { type: 'disable', name: 'c' },
          { type: 'clear', name: 'c' },
          { type: 'clear', name: 'lazy' },
          { type: 'merge', target: 'b', sources: ['c', 'a'] },
          { type: 'remove', name: 'd' },
          { type: 'enable', name: 'nobody' },
        ]),
      hasCode('ERR_BITMAP_UNKNOWN'),
    );
    assert.deepEqual(bitmaps.list(), before);
    assert.equal(lazy.loads, 0);
    bitmaps.record(5 * G, 1);
    assert.deepEqual(
      ['a', 'b', 'c', 'lazy'].map((name) => offsets(bitmaps, name)),
      [[3, 5], [], [3, 5], [3, 5, 7]],
    );
    assert.equal(view.count, 2, 'who looked before still sees the same bitmap');
  });

  it('is refused as a whole when one of its actions is unknown', () => {
    const bitmaps = make();
    const actions = [{ type: 'add', name: 'x' }, { type: 'explode' }] as never;
    assert.throws(() => bitmaps.transaction(actions), TypeError);
    assert.equal(bitmaps.count, 0);
  });
});

describe('a stored bitmap', () => {
  it('is loaded once, when somebody asks for its bits, and not for its states', () => {
    const bitmaps = make();
    const lazy = stored();
    bitmaps.register(lazy);
    bitmaps.enable('stored');
    bitmaps.disable('stored');
    assert.equal(bitmaps.list()[0].dirtyBytes, G);
    assert.equal(lazy.loads, 0);
    assert.deepEqual(offsets(bitmaps, 'stored'), [7]);
    assert.deepEqual(offsets(bitmaps, 'stored'), [7]);
    assert.equal(lazy.loads, 1);
  });

  it('records before it is loaded', () => {
    const bitmaps = make();
    const lazy = stored({ recording: true });
    bitmaps.register(lazy);
    bitmaps.record(0, 1);
    assert.equal(bitmaps.list()[0].dirtyBytes, null);
    bitmaps.disable('stored');
    assert.equal(lazy.loads, 0);
    assert.deepEqual(offsets(bitmaps, 'stored'), [0, 7]);
  });

  it('is never loaded when it is cleared first', () => {
    const bitmaps = make();
    const lazy = stored();
    bitmaps.register(lazy);
    bitmaps.clear('stored');
    assert.equal(bitmaps.get('stored').count, 0);
    assert.equal(lazy.loads, 0);
  });

  it('that takes time to load is not used before it is loaded', async () => {
    const bitmaps = make();
    const lazy = stored({}, true);
    bitmaps.register(lazy);
    bitmaps.add({ name: 'x' });
    assert.throws(() => bitmaps.get('stored').count, hasCode('ERR_BITMAP_UNLOADED'));
    assert.throws(() => bitmaps.merge('x', ['stored']), hasCode('ERR_BITMAP_UNLOADED'));
    await Promise.all([bitmaps.load('stored'), bitmaps.load('stored')]);
    assert.equal(lazy.loads, 1);
    bitmaps.merge('x', ['stored']);
    assert.deepEqual(offsets(bitmaps, 'x'), [7]);
  });

  it('that is cleared while it is loaded stays clear', async () => {
    const bitmaps = make();
    bitmaps.register(stored({}, true));
    const loading = bitmaps.load('stored');
    bitmaps.clear('stored');
    await loading;
    assert.equal(bitmaps.get('stored').count, 0);
  });

  it('that cannot be loaded stays as it was', () => {
    const bitmaps = make();
    const load = () => {
      throw new LacunaError('ERR_BITMAP_CORRUPT', 'damaged');
    };
    bitmaps.register({ ...stored(), load });
    const { arena } = bitmaps;
    const before = arena.usedBytes;
    assert.throws(() => bitmaps.get('stored').count, hasCode('ERR_BITMAP_CORRUPT'));
    assert.throws(() => bitmaps.resize(SIZE + 1), hasCode('ERR_BITMAP_CORRUPT'));
    assert.equal(arena.usedBytes, before);
    assert.equal(bitmaps.list()[0].dirtyBytes, G);
  });

  it('asks its store before it begins to record, and does not when that refuses', () => {
    const bitmaps = make();
    const told: string[] = [];
    bitmaps.store = {
      beforeRecording(name) {
        told.push(name);
        if (name === 'refused') throw new LacunaError('ERR_BITMAP_FILE', 'no');
      },
      beforeAdding() {},
    };
    bitmaps.register(stored({ name: 'refused' }), stored());
    bitmaps.add({ name: 'transient' });
    bitmaps.add({ name: 'new', persistent: true });
    bitmaps.enable('stored');
    bitmaps.enable('stored');
    assert.throws(() => bitmaps.enable('refused'), hasCode('ERR_BITMAP_FILE'));
    assert.equal(bitmaps.get('refused').info.recording, false);
    assert.deepEqual(told, ['new', 'stored', 'refused']);
  });
});

describe('the journal', () => {
  it('holds no more generations than cursors and one, however often somebody looks', () => {
    const arena = Arena.create();
    const idle = arena.usedBytes;
    const journal = new Journal(SIZE, arena);
    const idler = journal.join(G);
    const readers = [512, G, 2 * G].map((granularity) => ({
      cursor: journal.join(granularity),
      bits: new Bitmap({ size: SIZE, granularity, arena }),
    }));
    for (let i = 0; i < 3000; i++) {
      journal.active!.set((i % 100) * G, 1);
      const { cursor, bits } = readers[i % 3];
      cursor.fold(bits);
      assert.ok(journal.generations <= 5);
    }
    const late = new Bitmap({ size: SIZE, granularity: G, arena });
    idler.fold(late);
    assert.equal(late.count, 100);
    assert.equal(journal.generations <= 4, true);
    for (const { cursor, bits } of readers) {
      cursor.free();
      bits.free();
    }
    idler.free();
    late.free();
    assert.equal(journal.active, null);
    assert.equal(arena.usedBytes, idle);
  });

  it('records in the finest granularity of those that record, and no finer', () => {
    const journal = new Journal(SIZE, Arena.default);
    const coarse = journal.join(2 ** 20);
    assert.equal(journal.active!.granularity, 2 ** 20);
    const fine = journal.join(512);
    assert.equal(journal.active!.granularity, 512);
    journal.active!.set(0, 1);
    fine.free();
    const bits = new Bitmap({ size: SIZE, granularity: 2 ** 20 });
    coarse.fold(bits);
    assert.equal(bits.count, 1);
    assert.equal(journal.active!.granularity, 2 ** 20);
    coarse.free();
  });
});
