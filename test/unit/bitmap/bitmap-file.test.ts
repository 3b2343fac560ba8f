import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Arena, Bitmap, BitmapFile, DirtyBitmaps } from 'lacuna/bitmap';
import { LacunaError } from 'lacuna/errors';
import { describe, it } from 'vitest';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { Random } from './random.js';

const G = 65536;
/** 200 granules and a piece: three full words and a partial one. */
const SIZE = 200 * G + 777;
const folder = temporaryFolder();
let files = 0;

function newPath(): string {
  return join(folder, `${files++}.bitmaps`);
}

/** A closed file with a bitmap that records, one that does not, and one that is not persistent. */
function writeSample(path = newPath(), identity?: string): string {
  const file = BitmapFile.open(path, { size: SIZE, identity });
  const bitmaps = new DirtyBitmaps({ size: SIZE });
  file.restore(bitmaps);
  bitmaps.add({ name: 'nightly', persistent: true });
  bitmaps.add({ name: 'gone' });
  bitmaps.record(3 * G, 2 * G);
  bitmaps.record(70 * G, 130 * G);
  bitmaps.add({ name: 'frozen', granularity: 512, persistent: true, disabled: true });
  bitmaps.merge('frozen', ['nightly']);
  file.close(bitmaps);
  bitmaps.free();
  return path;
}

function hasCode(...codes: string[]): (error: unknown) => boolean {
  return (error) => error instanceof LacunaError && codes.includes(error.code);
}

function open(path: string, options: { readOnly?: boolean; identity?: string } = {}): BitmapFile {
  return BitmapFile.open(path, { size: SIZE, ...options });
}

/** Opens a file and loads all that is in it, as far as that goes. */
function readAll(path: string, arena = Arena.default): void {
  const file = BitmapFile.open(path, { size: SIZE, readOnly: true, arena });
  try {
    for (const { name } of file.bitmaps) file.load(name).free();
  } finally {
    file.close();
  }
}

describe('a file of bitmaps', () => {
  it('gives back the persistent bitmaps, and reads their bits when asked', () => {
    const path = writeSample();
    const file = open(path);
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    file.restore(bitmaps);
    const [nightly, frozen] = bitmaps.list();
    const common = { busy: false, persistent: true, inconsistent: false, readOnly: false };
    const dirtyBytes = 132 * G;
    const first = { name: 'nightly', granularity: G, dirtyBytes, recording: true };
    assert.deepEqual(nightly, { ...common, ...first });
    const second = { name: 'frozen', granularity: 512, dirtyBytes, recording: false };
    assert.deepEqual(frozen, { ...common, ...second });
    assert.notEqual(bitmaps.untouched('frozen'), null, 'nothing has been loaded');
    assert.deepEqual(
      [...bitmaps.get('frozen').ranges()],
      [
        { offset: 3 * G, length: 2 * G },
        { offset: 70 * G, length: 130 * G },
      ],
    );
    assert.equal(bitmaps.untouched('frozen'), null);
    file.close();
  });

  it('is not made before something is stored', () => {
    const path = newPath();
    const file = open(path);
    assert.deepEqual(file.bitmaps, []);
    file.close();
    assert.equal(existsSync(path), false);
  });

  it('adds what is written to what it held', () => {
    const path = writeSample();
    const file = open(path);
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    file.restore(bitmaps);
    bitmaps.record(0, 1);
    file.close(bitmaps);
    const again = open(path);
    assert.equal(again.load('nightly').get(0), true);
    assert.equal(again.load('nightly').dirtyBytes, 133 * G);
    assert.equal(again.load('frozen').dirtyBytes, 132 * G);
    again.close();
  });

  it('copies what nobody has loaded, again and again', () => {
    const path = writeSample();
    const file = open(path);
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    file.restore(bitmaps);
    for (let i = 0; i < 3; i++) {
      bitmaps.add({ name: `new ${i}`, persistent: true });
      bitmaps.record(i * G, 1);
      file.store(bitmaps);
      assert.notEqual(bitmaps.untouched('frozen'), null);
    }
    assert.equal(bitmaps.get('frozen').dirtyBytes, 132 * G);
    file.close(bitmaps);
    readAll(path);
  });

  it('keeps its rights when it is replaced', () => {
    const path = writeSample();
    chmodSync(path, 0o600);
    writeSample(newPath());
    const file = open(path);
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    file.restore(bitmaps);
    file.close(bitmaps);
    assert.equal(statSync(path).mode & 0o777, 0o600);
  });

  it('holds what a successor recorded, too', () => {
    const path = writeSample();
    const file = open(path);
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    file.restore(bitmaps);
    bitmaps.createSuccessor('nightly');
    bitmaps.record(10 * G, 1);
    file.close(bitmaps);
    const again = open(path);
    assert.equal(again.load('nightly').dirtyBytes, 133 * G);
    assert.equal(again.bitmaps[0].recording, true);
    again.close();
  });

  it('is small for what is empty, full or sparse, whatever the size', () => {
    const size = 2 ** 50;
    const path = newPath();
    const bitmaps = new DirtyBitmaps({ size });
    for (const name of ['empty', 'full', 'sparse']) {
      bitmaps.add({ name, persistent: true, disabled: true });
    }
    const bits = new Bitmap({ size, granularity: G });
    for (let i = 0; i < 1000; i++) bits.set(i * 2 ** 40, 1);
    bitmaps.merge('sparse', [bits]);
    bits.setAll();
    bitmaps.merge('full', [bits]);
    const file = BitmapFile.open(path, { size });
    file.close(bitmaps);
    assert.ok(statSync(path).size < 25_000, `${statSync(path).size} bytes`);
    const again = BitmapFile.open(path, { size });
    assert.equal(again.load('full').dirtyBytes, size);
    assert.equal(again.load('sparse').count, 1000);
    assert.equal(again.load('empty').count, 0);
    again.close();
  });
});

describe('marks', () => {
  it('make inconsistent what recorded when nobody closed the file, and nothing else', () => {
    const path = writeSample();
    const crashed = open(path);
    crashed.restore(new DirtyBitmaps({ size: SIZE }));
    crashed.close();
    const file = open(path);
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    file.restore(bitmaps);
    const states = bitmaps.list().map(({ name, recording, inconsistent }) => {
      return [name, recording, inconsistent];
    });
    assert.deepEqual(states, [
      ['nightly', false, true],
      ['frozen', false, false],
    ]);
    assert.throws(() => bitmaps.get('nightly').count, hasCode('ERR_BITMAP_INCONSISTENT'));
    assert.equal(bitmaps.get('frozen').dirtyBytes, 132 * G);
    file.close(bitmaps);
    const later = open(path);
    assert.equal(later.bitmaps[0].inconsistent, true, 'it stays so until it is removed');
    later.close();
  });

  it('are written before a stored bitmap begins to record', () => {
    const path = writeSample();
    const file = open(path);
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    file.restore(bitmaps);
    bitmaps.enable('frozen');
    file.close();
    const after = open(path);
    assert.deepEqual(
      after.bitmaps.map(({ inconsistent }) => inconsistent),
      [true, true],
    );
    after.close();
  });

  it('stay on what records when the file is stored in between', () => {
    const path = writeSample();
    const file = open(path);
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    file.restore(bitmaps);
    bitmaps.disable('nightly');
    bitmaps.enable('frozen');
    file.store(bitmaps);
    file.close();
    const after = open(path);
    assert.deepEqual(
      after.bitmaps.map(({ inconsistent }) => inconsistent),
      [false, true],
    );
    after.close();
  });

  it('are not written by a caller who only reads', () => {
    const path = writeSample();
    const before = readFileSync(path);
    const file = open(path, { readOnly: true });
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    file.restore(bitmaps);
    assert.equal(bitmaps.get('nightly').dirtyBytes, 132 * G);
    assert.throws(() => bitmaps.record(0, 1), hasCode('ERR_BITMAP_READONLY'));
    assert.throws(() => bitmaps.clear('frozen'), hasCode('ERR_BITMAP_READONLY'));
    assert.throws(() => bitmaps.remove('frozen'), hasCode('ERR_BITMAP_READONLY'));
    assert.throws(() => file.store(bitmaps), hasCode('ERR_BITMAP_READONLY'));
    file.close();
    assert.deepEqual(readFileSync(path), before);
  });

  it('are gone after a close, after which nothing is recorded any more', () => {
    const path = writeSample();
    const file = open(path);
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    file.restore(bitmaps);
    file.close(bitmaps);
    assert.throws(() => bitmaps.record(0, 1), hasCode('ERR_BITMAP_READONLY'));
    assert.throws(() => bitmaps.get('frozen').count, hasCode('ERR_BITMAP_FILE'));
    assert.throws(() => file.store(bitmaps), hasCode('ERR_BITMAP_FILE'));
  });
});

describe('a file of another disk is refused', () => {
  it('by its size', () => {
    const path = writeSample();
    const other = { size: SIZE + 1 };
    assert.throws(() => BitmapFile.open(path, other), hasCode('ERR_BITMAP_MISMATCH'));
    const file = open(path);
    const bitmaps = new DirtyBitmaps(other);
    assert.throws(() => file.restore(bitmaps), hasCode('ERR_BITMAP_MISMATCH'));
    file.close();
  });

  it('by its identity, which outlives those who do not name it', () => {
    const path = writeSample(newPath(), 'disk 1');
    assert.throws(() => open(path, { identity: 'disk 2' }), hasCode('ERR_BITMAP_MISMATCH'));
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    const file = open(path);
    file.restore(bitmaps);
    file.close(bitmaps);
    open(path, { identity: 'disk 1' }).close();
    const plain = writeSample();
    assert.throws(() => open(plain, { identity: 'disk 1' }), hasCode('ERR_BITMAP_MISMATCH'));
  });

  it('and follows its disk when that is resized', () => {
    const path = writeSample();
    const file = open(path);
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    file.restore(bitmaps);
    bitmaps.resize(SIZE + G);
    file.close(bitmaps);
    const again = BitmapFile.open(path, { size: SIZE + G });
    assert.equal(again.load('frozen').dirtyBytes, 132 * G);
    again.close();
  });
});

describe('a damaged file is refused', () => {
  const bytes = readFileSync(writeSample());
  const path = newPath();
  const arena = Arena.create({ maximumBytes: 2 ** 22 });
  const idle = arena.usedBytes;

  it('wherever a byte has changed', () => {
    for (let at = 0; at < bytes.length; at++) {
      for (const flip of [1, 0x80, 0xff]) {
        const damaged = Buffer.from(bytes);
        damaged[at] ^= flip;
        // A mark that is turned over completely is a mark.
        if (damaged[at] === 0xff && bytes[at] === 0 && isMark(at)) continue;
        writeFileSync(path, damaged);
        assert.throws(() => readAll(path, arena), hasCode('ERR_BITMAP_CORRUPT'), `byte ${at}`);
      }
    }
    assert.equal(arena.usedBytes, idle);
  });

  it('wherever it was cut, and when something follows', () => {
    for (let length = 0; length < bytes.length; length++) {
      writeFileSync(path, bytes.subarray(0, length));
      assert.throws(() => readAll(path), hasCode('ERR_BITMAP_CORRUPT'), `${length} bytes`);
    }
    writeFileSync(path, Buffer.concat([bytes, Buffer.of(0)]));
    assert.throws(() => readAll(path), hasCode('ERR_BITMAP_CORRUPT'));
    truncateSync(path, 2 ** 40);
    assert.throws(() => readAll(path), hasCode('ERR_BITMAP_CORRUPT'), 'a sparse terabyte');
  });

  it('whatever somebody writes who knows how to sum it up', () => {
    const random = new Random(Random.seed());
    for (let i = 0; i < 5000; i++) {
      writeFileSync(path, forge(bytes, random));
      try {
        readAll(path, arena);
      } catch (error) {
        const expected = hasCode('ERR_BITMAP_CORRUPT', 'ERR_BITMAP_MISMATCH', 'ERR_ARENA_FULL');
        assert.ok(expected(error), `LACUNA_SEED=${random.seed}: ${error}`);
      }
    }
    assert.equal(arena.usedBytes, idle);
  });

  it.each([
    ['clean words behind the end', 'section', 5 * 4],
    ['too few words', 'section', 3 * 4],
    ['no words', 'section', 0],
    ['an unknown kind', 'section', 4 * 4 + 3],
    ['another number of dirty bytes', 'dirty', 1],
  ])('for %s, though all sums are right', (_what, where, value) => {
    writeFileSync(
      path,
      forgeEmpty((head, section) => {
        (where === 'section' ? section : head.subarray(32 + 8)).writeUInt32LE(value, 0);
      }),
    );
    assert.throws(() => readAll(path, arena), hasCode('ERR_BITMAP_CORRUPT'));
  });

  it('when it is no file', () => {
    assert.throws(() => open(folder), hasCode('ERR_BITMAP_FILE', 'ERR_BITMAP_CORRUPT'));
  });

  it('but does not keep the others from being used', () => {
    const damaged = Buffer.from(bytes);
    damaged[bytes.length - 1] ^= 1;
    writeFileSync(path, damaged);
    const file = open(path);
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    file.restore(bitmaps);
    assert.equal(bitmaps.get('nightly').dirtyBytes, 132 * G);
    assert.throws(() => bitmaps.get('frozen').count, hasCode('ERR_BITMAP_CORRUPT'));
    assert.throws(() => file.store(bitmaps), hasCode('ERR_BITMAP_CORRUPT'));
    assert.equal(existsSync(`${path}.new`), false, 'nothing is left lying about');
    bitmaps.remove('frozen');
    file.close(bitmaps);
    readAll(path);
  });

  function isMark(at: number): boolean {
    const head = bytes.readUInt32LE(12);
    return at >= head && at < head + 2;
  }
});

it('a file of bitmaps gives any content back bit for bit', () => {
  const random = new Random(Random.seed());
  for (let round = 0; round < 300; round++) {
    const granularity = random.pick([512, 4096, G, 2 ** 20]);
    const size = Math.max(
      1,
      random.pick([1, 64, 5000, 70000]) * granularity - random.between(0, 600),
    );
    const bitmaps = new DirtyBitmaps({ size, granularity });
    bitmaps.add({ name: 'x', persistent: true });
    for (let i = random.pick([0, 1, 10, 1000]); i > 0; i--) {
      const offset = random.between(0, size - 1);
      const most = random.pick([granularity, 40 * granularity, 1000 * granularity]);
      bitmaps.record(offset, random.between(0, Math.min(size - offset, most)));
    }
    if (round % 10 === 0) bitmaps.record(0, size);
    const path = newPath();
    BitmapFile.open(path, { size }).close(bitmaps);
    const file = BitmapFile.open(path, { size });
    const loaded = file.load('x');
    assert.equal(loaded.digest(), bitmaps.get('x').digest(), `LACUNA_SEED=${random.seed}`);
    loaded.free();
    file.close();
    bitmaps.free();
  }
});

it('a file of bitmaps gives long stretches of mixed words back', () => {
  const size = 600_000 * 512;
  const bitmaps = new DirtyBitmaps({ size, granularity: 512 });
  bitmaps.add({ name: 'x', persistent: true });
  for (let at = 0; at < size; at += 1536) bitmaps.record(at, 1);
  const path = newPath();
  BitmapFile.open(path, { size }).close(bitmaps);
  const file = BitmapFile.open(path, { size });
  assert.equal(file.load('x').digest(), bitmaps.get('x').digest());
  file.close();
});

/** A file with one empty bitmap, changed, with right checksums. */
function forgeEmpty(change: (head: Buffer, section: Buffer) => void): Buffer {
  const path = newPath();
  const bitmaps = new DirtyBitmaps({ size: SIZE });
  bitmaps.add({ name: 'empty', persistent: true });
  BitmapFile.open(path, { size: SIZE }).close(bitmaps);
  const bytes = readFileSync(path);
  const length = bytes.readUInt32LE(12);
  const section = bytes.subarray(length + 1);
  assert.equal(section.readUInt32LE(0), 4 * 4, 'four clean words');
  change(bytes, section);
  sha256(section).copy(bytes, 32 + 16);
  sha256(bytes.subarray(0, length - 32)).copy(bytes, length - 32);
  return bytes;
}

/** Changes a byte or a number of a file, and makes its checksums right again. */
function forge(bytes: Buffer, random: Random): Buffer {
  const forged = Buffer.from(bytes);
  const head = forged.readUInt32LE(12);
  const values = [0, 1, 0xff, 0x80, 0x7f, random.between(0, 255)];
  const inHead = random.fraction() < 0.5;
  const at = inHead ? random.between(16, head - 33) : random.between(head, forged.length - 1);
  const length = Math.min(random.pick([1, 1, 4, 8]), (inHead ? head - 32 : forged.length) - at);
  forged.fill(random.pick(values), at, at + length);
  let [entry, section] = [32, head + 2];
  for (let i = 0; i < 2; i++) {
    const sectionBytes = Number(bytes.readBigUInt64LE(entry));
    const sum = sha256(forged.subarray(section, section + sectionBytes));
    if (!inHead) sum.copy(forged, entry + 16);
    section += sectionBytes;
    entry += 52 + bytes.readUInt16LE(entry + 50);
  }
  sha256(forged.subarray(0, head - 32)).copy(forged, head - 32);
  return forged;
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}
