import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BitmapFile, DirtyBitmaps } from 'lacuna/bitmap';
import { describe, it } from 'vitest';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { FailingDisk, PowerCut } from './power-cut.js';

const G = 65536;
const SIZE = 1000 * G + 5;
const folder = temporaryFolder();

/** A file as an earlier session left it. */
function prepare(path: string): void {
  const bitmaps = new DirtyBitmaps({ size: SIZE });
  bitmaps.add({ name: 'busy', persistent: true });
  bitmaps.add({ name: 'calm', persistent: true });
  bitmaps.add({ name: 'later', persistent: true });
  bitmaps.record(0, 3 * G);
  bitmaps.disable('calm');
  bitmaps.disable('later');
  BitmapFile.open(path, { size: SIZE }).close(bitmaps);
}

/** All that a session does to a file, with writes before and after each step. */
function session(file: BitmapFile, bitmaps: DirtyBitmaps, told: { closed: boolean }): void {
  let granule = 10;
  const write = () => bitmaps.record(granule++ * 7 * G, 2 * G);
  file.restore(bitmaps);
  write();
  file.store(bitmaps);
  write();
  bitmaps.enable('later');
  write();
  bitmaps.add({ name: 'new', persistent: true });
  write();
  file.store(bitmaps);
  write();
  bitmaps.disable('busy');
  write();
  file.store(bitmaps);
  bitmaps.enable('busy');
  write();
  bitmaps.createSuccessor('later');
  write();
  file.store(bitmaps);
  write();
  bitmaps.reclaim('later');
  write();
  file.close(bitmaps);
  told.closed = true;
}

/** Runs a session until the power fails; returns whether it came to its end. */
function run(path: string, disk: FailingDisk, bitmaps: DirtyBitmaps): boolean {
  const told = { closed: false };
  let file: BitmapFile | undefined;
  try {
    file = BitmapFile.open(path, { size: SIZE, operations: disk });
    session(file, bitmaps, told);
  } catch (error) {
    // The file stays open, for the truth to be read from it.
    if (!(error instanceof PowerCut)) throw error;
  }
  return told.closed;
}

/** A bitmap that is not said to lack writes must lack none. */
function checkLeftover(content: Buffer | undefined, truth: DirtyBitmaps, closed: boolean): void {
  assert.ok(content !== undefined, 'the file is still there');
  const path = join(folder, 'leftover');
  writeFileSync(path, content);
  const file = BitmapFile.open(path, { size: SIZE });
  const names = file.bitmaps.map(({ name }) => name);
  for (const name of ['busy', 'calm', 'later']) assert.ok(names.includes(name), `has ${name}`);
  for (const { name, inconsistent } of file.bitmaps) {
    assert.ok(!inconsistent || (name !== 'calm' && !closed), `${name} is inconsistent`);
    // Before it was restored, nothing was recorded.
    if (inconsistent || !truth.has(name) || (closed && truth.untouched(name))) continue;
    const lost = truth.union(name);
    const found = file.load(name);
    lost.subtract(found);
    assert.equal(lost.count, 0, `${name} lost writes`);
    found.free();
    lost.free();
  }
  file.close();
}

describe('the file of bitmaps', () => {
  it('never loses a write, wherever the power fails', () => {
    let closed = false;
    let cutAt = 1;
    for (; !closed; cutAt++) {
      const own = join(folder, String(cutAt));
      mkdirSync(own);
      const path = join(own, 'disk.bitmaps');
      prepare(path);
      const disk = new FailingDisk(cutAt, [path]);
      const truth = new DirtyBitmaps({ size: SIZE });
      closed = run(path, disk, truth);
      for (const [i, content] of disk.leftovers(path).entries()) {
        try {
          checkLeftover(content, truth, closed);
        } catch (cause) {
          throw new Error(`cut at step ${cutAt}, leftover ${i}`, { cause });
        }
      }
      truth.free();
    }
    assert.ok(cutAt > 25, `only ${cutAt} steps were cut`);
  });

  it('is made whole the first time, or not at all', () => {
    for (let cutAt = 1, done = false; !done; cutAt++) {
      const own = join(folder, `first ${cutAt}`);
      mkdirSync(own);
      const path = join(own, 'disk.bitmaps');
      const disk = new FailingDisk(cutAt, []);
      const bitmaps = new DirtyBitmaps({ size: SIZE });
      bitmaps.add({ name: 'a', persistent: true });
      const file = BitmapFile.open(path, { size: SIZE, operations: disk });
      try {
        file.close(bitmaps);
        done = true;
      } catch (error) {
        if (!(error instanceof PowerCut)) throw error;
        file.close();
      }
      for (const content of disk.leftovers(path)) {
        if (content === undefined) assert.equal(done, false);
        else {
          writeFileSync(path, content);
          assert.equal(BitmapFile.open(path, { size: SIZE }).bitmaps.length, 1);
        }
      }
    }
  });
});
