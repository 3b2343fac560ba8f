import assert from 'node:assert/strict';
import { Arena, Bitmap, type BitmapHandle } from 'lacuna/bitmap';
import { describe, it } from 'vitest';
import { Model, type Operation } from './model.js';
import { Random } from './random.js';

const G = 4096;

describe('a bitmap in a full arena', () => {
  const FULL = { code: 'ERR_ARENA_FULL' };

  /** A small arena, and a way to take all that is left of it. */
  function tightArena(): { arena: Arena; fill(): () => void } {
    const arena = Arena.create({ maximumBytes: 2 ** 20 });
    const fill = () => {
      const blocks: ReturnType<Arena['allocate']>[] = [];
      assert.throws(() => {
        for (;;) blocks.push(arena.allocate(64));
      }, FULL);
      return () => {
        for (const block of blocks) block.free();
      };
    };
    return { arena, fill };
  }

  it('stays as it was by every operation that fails', () => {
    const random = new Random(Random.seed());
    const { arena, fill } = tightArena();
    const idle = arena.usedBytes;
    const size = 2 ** 20 * G;
    const scattered = (): Bitmap => {
      const bitmap = new Bitmap({ size, granularity: G, arena });
      for (let i = 0; i < 2000; i++) bitmap.set(random.between(0, size / 40), 1);
      return bitmap;
    };
    const bitmap = scattered();
    const other = scattered();
    const finer = new Bitmap({ size, granularity: 1024, arena });
    for (let i = 0; i < 400; i++) finer.set(random.between(0, 2 ** 20 - 2) * G, 2 * G);
    const copy = bitmap.snapshot();
    const before = [bitmap.digest(), bitmap.count];
    const release = fill();
    const used = arena.usedBytes;
    assert.throws(() => bitmap.snapshot(), FULL);
    assert.throws(() => copy.set(size / 2, 1), FULL);
    assert.throws(() => copy.setAll(), FULL);
    assert.equal(arena.usedBytes, used, 'failing takes nothing');
    const operations: Operation[] = ['merge', 'subtract', 'intersect', 'xor'];
    for (const operation of operations) {
      assert.throws(() => bitmap[operation](other), FULL, operation);
      assert.throws(() => bitmap[operation](finer), FULL, operation);
    }
    assert.ok(arena.usedBytes <= used, 'failing takes nothing');
    release();
    assert.deepEqual([bitmap.digest(), bitmap.count], before, `LACUNA_SEED=${random.seed}`);
    assert.deepEqual([copy.digest(), copy.count], before);
    for (const each of [bitmap, other, finer, copy]) each.free();
    assert.equal(arena.usedBytes, idle);
  });

  it('can always be emptied and freed', () => {
    const { arena, fill } = tightArena();
    const bitmap = new Bitmap({ size: 2 ** 40, granularity: G, arena });
    const model = new Model(100 * G, G);
    for (let i = 0; i < 100; i += 3) bitmap.set(i * G, 1);
    for (let i = 0; i < 100; i += 3) model.set(i * G, 1);
    fill();
    assert.equal(bitmap.count, model.count);
    bitmap.resetAll();
    assert.equal(bitmap.count, 0);
    bitmap.free();
  });
});

describe('a bitmap', () => {
  const arena = Arena.create({ maximumBytes: 2 ** 24 });

  it('is attached by its handle, and lives until the last holder frees it', () => {
    const idle = arena.usedBytes;
    const bitmap = new Bitmap({ size: 100 * G, granularity: G, arena });
    const second = Bitmap.attach(arena, bitmap.handle);
    bitmap.set(5 * G, 1);
    assert.equal(second.nextDirty(0), 5 * G);
    assert.deepEqual([second.size, second.granularity], [100 * G, G]);
    bitmap.free();
    assert.equal(second.count, 1);
    second.free();
    assert.equal(arena.usedBytes, idle);
  });

  it('is not attached by anything but a handle', () => {
    const handles = [0, 1, 512, 2 ** 23, 2 ** 40, -1, 0.5, 'x', undefined];
    for (const handle of handles) {
      assert.throws(() => Bitmap.attach(arena, handle as BitmapHandle), TypeError, `${handle}`);
    }
    const bitmap = new Bitmap({ size: G, granularity: G, arena });
    const { handle } = bitmap;
    bitmap.free();
    assert.throws(() => Bitmap.attach(arena, handle), TypeError);
  });

  it('throws a TypeError once it has been freed, and may be freed twice', () => {
    const bitmap = new Bitmap({ size: 100 * G, granularity: G, arena });
    bitmap.free();
    bitmap.free();
    assert.throws(() => bitmap.set(0, 1), /freed/);
    assert.throws(() => bitmap.count, /freed/);
  });

  it('is freed at the end of its scope', () => {
    const idle = arena.usedBytes;
    {
      using bitmap = new Bitmap({ size: 100 * G, granularity: G, arena });
      bitmap.set(0, 1);
    }
    assert.equal(arena.usedBytes, idle);
  });

  it('refuses what is no size and no granularity, and says so', () => {
    const make = (size: unknown, granularity: unknown) =>
      new Bitmap({ size: size as number, granularity: granularity as number, arena });
    assert.throws(() => make(2 ** 53, G), /RangeError.*9007199254740992|not 9007199254740992/);
    assert.throws(() => make('10', G), /TypeError|not "10" \(string\)/);
    for (const granularity of [0, 1, 256, 1000, 2 ** 32, -512, Number.NaN]) {
      assert.throws(() => make(G, granularity), RangeError, `${granularity}`);
    }
    assert.throws(() => make(G, 512n), TypeError);
  });

  it('combines with one in another arena', () => {
    const bitmap = new Bitmap({ size: 5000 * G, granularity: G, arena });
    const other = new Bitmap({ size: 5000 * G, granularity: G });
    for (let i = 0; i < 5000; i += 2) other.set(i * G, 1);
    bitmap.merge(other);
    assert.equal(bitmap.digest(), other.digest());
    bitmap.free();
    other.free();
  });

  it('takes no memory for leaves with one or two runs', () => {
    const bitmap = new Bitmap({ size: 2 ** 36, granularity: G, arena });
    for (let leaf = 0; leaf < 2000; leaf++) bitmap.set(leaf * 4096 * G + 77 * G, 3 * G);
    const before = arena.usedBytes;
    for (let leaf = 0; leaf < 2000; leaf++) bitmap.set(leaf * 4096 * G + 300 * G, 3 * G);
    assert.equal(arena.usedBytes, before);
    bitmap.set(600 * G, 1);
    assert.ok(arena.usedBytes <= before + 512);
    bitmap.reset(77 * G, 3 * G);
    assert.deepEqual(bitmap.nextDirtyArea(0), { offset: 300 * G, length: 3 * G });
    bitmap.free();
  });

  it('gives leaves back when they become uniform', () => {
    const bitmap = new Bitmap({ size: 2 ** 36, granularity: G, arena });
    bitmap.set(0, 1);
    const before = arena.usedBytes;
    for (let i = 0; i < 200_000; i += 2) bitmap.set(i * G, 1);
    assert.ok(arena.usedBytes > before + 48 * 512);
    for (let i = 1; i < 200_000; i += 2) bitmap.set(i * G, 1);
    assert.deepEqual([...bitmap.ranges()], [{ offset: 0, length: 200_000 * G }]);
    // A leaf may stay where the run ends, and a bitmap keeps a few spare units.
    assert.ok(arena.usedBytes <= before + 17 * 512, `${arena.usedBytes - before}`);
    for (let i = 0; i < 200_000; i++) bitmap.reset(i * G, G);
    assert.ok(arena.usedBytes <= before + 16 * 512, `${arena.usedBytes - before}`);
    bitmap.free();
  });

  it('gives nodes back when they become uniform', () => {
    const leaf = 4096 * G;
    const bitmap = new Bitmap({ size: 2 ** 44, granularity: G, arena });
    bitmap.set(0, 1);
    const before = arena.usedBytes;
    for (let i = 0; i < 40 * 64; i++) bitmap.set(i * leaf, leaf / 2);
    assert.ok(arena.usedBytes >= before + 39 * 512);
    for (let i = 0; i < 40 * 64; i++) bitmap.set(i * leaf + leaf / 2, leaf / 2);
    assert.ok(arena.usedBytes <= before + 16 * 512, `${arena.usedBytes - before}`);
    bitmap.free();
  });

  it('sees changes ahead of an iteration', () => {
    const bitmap = new Bitmap({ size: 10_000 * G, granularity: G, arena });
    for (let i = 0; i < 10_000; i += 2) bitmap.set(i * G, 1);
    let seen = 0;
    for (const { offset } of bitmap.ranges()) {
      if (seen++ === 0) bitmap.reset(8000 * G, 2000 * G);
      assert.ok(offset < 8000 * G);
    }
    assert.equal(seen, 4000);
    bitmap.free();
  });
});
