/** Before dirt is added to a stored bitmap, it is durable that what is stored lacks something. */
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { BitmapImage, createQcow2, openBitmaps } from 'lacuna';
import { Arena, Bitmap, BitmapFile, DirtyBitmaps } from 'lacuna/bitmap';
import { LacunaError } from 'lacuna/errors';
import { describe, it } from 'vitest';
import { ImageBitmaps } from '#dist/block/drivers/qcow2/bitmaps/image-bitmaps.js';
import { HostFile } from '#dist/block/drivers/qcow2/io/host-file.js';
import { LiveHeader } from '#dist/block/drivers/qcow2/io/live-header.js';
import { readHeader } from '#dist/block/drivers/qcow2/io/read-header.js';
import { readerOf } from '#dist/block/drivers/qcow2/io/reader-of.js';
import { Allocator } from '#dist/block/drivers/qcow2/write/allocator.js';
import { Device } from '#dist/block/index.js';
import { fillArena } from '../../support/full-arena.js';
import { PowerCutDisk } from '../../support/power-cut-disk.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const G = 65536;
const SIZE = 64 * G;
const folder = temporaryFolder();
let files = 0;

function newPath(suffix: string): string {
  return join(folder, `${files++}.${suffix}`);
}

function dirt(granule: number): Bitmap {
  const bits = new Bitmap({ size: SIZE, granularity: G });
  bits.set(granule * G, 1);
  return bits;
}

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof LacunaError && error.code === code;
}

/** A file with a bitmap that records and two that do not, and granule 1 dirty in each. */
function newFile(): string {
  const path = newPath('bitmaps');
  const file = BitmapFile.open(path, { size: SIZE });
  const bitmaps = new DirtyBitmaps({ size: SIZE });
  file.restore(bitmaps);
  bitmaps.add({ name: 'on', persistent: true });
  for (const name of ['off', 'idle']) bitmaps.add({ name, persistent: true, disabled: true });
  for (const name of ['on', 'off', 'idle']) bitmaps.merge(name, [dirt(1)]);
  file.close(bitmaps);
  return path;
}

/** The same in an image. */
async function newImage(): Promise<string> {
  const path = newPath('qcow2');
  await createQcow2(path, { size: SIZE });
  await using image = await openBitmaps(path, { writable: true });
  image.bitmaps.add({ name: 'on', persistent: true });
  for (const name of ['off', 'idle']) {
    image.bitmaps.add({ name, persistent: true, disabled: true });
  }
  for (const name of ['on', 'off', 'idle']) image.bitmaps.merge(name, [dirt(1)]);
  await image.store();
  return path;
}

/** What a crash now would leave of each bitmap: its dirty granules, or that it lacks something. */
function leftInFile(path: string): Record<string, number | string> {
  const file = BitmapFile.open(path, { readOnly: true });
  const left = file.bitmaps.map(({ name, inconsistent }) => {
    return [name, inconsistent ? 'lacks' : file.load(name).count];
  });
  file.close();
  return Object.fromEntries(left);
}

async function leftInImage(path: string): Promise<Record<string, number | string>> {
  const copy = newPath('qcow2');
  copyFileSync(path, copy);
  await using image = await openBitmaps(copy);
  const left: Record<string, number | string> = {};
  for (const { name, inconsistent } of image.bitmaps.list()) {
    left[name] = inconsistent ? 'lacks' : (await image.load(name)).count;
  }
  return left;
}

describe('a stored bitmap of a file', () => {
  it('that does not record is marked by a merge, and good again when it is stored', () => {
    const path = newFile();
    const file = BitmapFile.open(path, { size: SIZE });
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    file.restore(bitmaps);
    assert.deepEqual(leftInFile(path), { on: 'lacks', off: 1, idle: 1 });
    bitmaps.transaction([{ type: 'merge', target: 'off', sources: [dirt(7)] }]);
    assert.deepEqual(leftInFile(path), { on: 'lacks', off: 'lacks', idle: 1 });
    file.store(bitmaps);
    assert.deepEqual(leftInFile(path), { on: 'lacks', off: 2, idle: 1 });
    bitmaps.createSuccessor('on');
    bitmaps.record(9 * G, 1);
    bitmaps.reclaim('on');
    bitmaps.merge('idle', ['on']);
    assert.deepEqual(leftInFile(path), { on: 'lacks', off: 2, idle: 'lacks' });
    file.close(bitmaps);
    assert.deepEqual(leftInFile(path), { on: 2, off: 2, idle: 2 });
  });

  it('is not marked by a merge that is refused', () => {
    const path = newFile();
    const file = BitmapFile.open(path, { size: SIZE });
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    file.restore(bitmaps);
    assert.throws(() => bitmaps.merge('off', ['on', 'nobody']), hasCode('ERR_BITMAP_UNKNOWN'));
    const other = new Bitmap({ size: SIZE + 1, granularity: G });
    assert.throws(() => bitmaps.merge('off', [other]), hasCode('ERR_BITMAP_MISMATCH'));
    assert.deepEqual(leftInFile(path), { on: 'lacks', off: 1, idle: 1 });
    file.close();
  });

  it('is not marked when there is no memory to restore it', () => {
    const path = newFile();
    const file = BitmapFile.open(path, { size: SIZE });
    const bitmaps = new DirtyBitmaps({
      size: SIZE,
      arena: Arena.create({ maximumBytes: 2 ** 20 }),
    });
    const release = fillArena(bitmaps.arena, 0);
    assert.throws(() => file.restore(bitmaps), hasCode('ERR_ARENA_FULL'));
    release();
    assert.equal(bitmaps.store, null);
    assert.equal(bitmaps.count, 0);
    file.close();
    assert.deepEqual(leftInFile(path), { on: 1, off: 1, idle: 1 });
  });
});

describe('a stored bitmap of an image', () => {
  it('that does not record is marked by a merge, and good again when it is stored', async () => {
    const path = await newImage();
    await using image = await openBitmaps(path, { writable: true });
    assert.deepEqual(await leftInImage(path), { on: 1, off: 1, idle: 1 });
    image.bitmaps.merge('off', [dirt(7)]);
    assert.deepEqual(await leftInImage(path), { on: 1, off: 'lacks', idle: 1 });
    await image.store();
    assert.deepEqual(await leftInImage(path), { on: 1, off: 2, idle: 1 });
  });

  it('that records is marked by the first write, each time after it was stored', async () => {
    const path = await newImage();
    await using image = await openBitmaps(path, { writable: true });
    image.bitmaps.enable('idle');
    assert.deepEqual(await leftInImage(path), { on: 1, off: 1, idle: 1 });
    for (let i = 1; i <= 2; i++) {
      image.bitmaps.record(20 * i * G, 1);
      assert.deepEqual(await leftInImage(path), { on: 'lacks', off: 1, idle: 'lacks' });
      await image.store();
      assert.deepEqual(await leftInImage(path), { on: 1 + i, off: 1, idle: 1 + i });
    }
  });

  it('is as it was when the image is closed without what was merged, but lacks what was recorded', async () => {
    const path = await newImage();
    {
      await using image = await openBitmaps(path, { writable: true });
      image.bitmaps.merge('off', [dirt(7)]);
      image.bitmaps.merge('on', [dirt(7)]);
      image.bitmaps.record(0, 1);
    }
    assert.deepEqual(await leftInImage(path), { on: 'lacks', off: 1, idle: 1 });
  });

  it('must be marked by its caller where the file takes time, and cannot be added to before', async () => {
    const disk = new PowerCutDisk(readFileSync(await newImage()));
    const driver = Object.defineProperty(disk.driver(), 'writeNow', { value: undefined });
    const image = await BitmapImage.open(new Device(driver), { writable: true });
    const add = () => image.bitmaps.merge('off', [dirt(7)]);
    assert.throws(add, hasCode('ERR_BITMAP_BUSY'));
    assert.throws(() => image.bitmaps.record(0, 1), hasCode('ERR_BITMAP_BUSY'));
    assert.equal((await image.load('off')).count, 1);
    await image.mark('off');
    add();
    await image.store();
    assert.equal((await image.load('off')).count, 2);
    await image.close();
  });

  it('is left marked by a store of an image that stays open, if it began to record meanwhile', async () => {
    const disk = new PowerCutDisk(readFileSync(await newImage()));
    const file = new Device(disk.driver());
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    const stored = await openImageBitmaps(file);
    stored.restore(bitmaps);
    bitmaps.add({ name: 'new', persistent: true, disabled: true });
    await stored.beforeWrite();
    bitmaps.record(0, 1);
    const storing = stored.store({ open: true });
    // The drafts have been made, and the old clusters are still those that count.
    for (let i = 0; i < 3; i++) await new Promise(setImmediate);
    bitmaps.enable('new');
    bitmaps.enable('off');
    assert.throws(() => bitmaps.merge('idle', [dirt(3)]), hasCode('ERR_BITMAP_BUSY'));
    assert.equal(stored.mustMark, true);
    await storing;
    assert.deepEqual(await leftOnDisk(disk), { on: 'lacks', off: 'lacks', idle: 1, new: 'lacks' });
    bitmaps.record(9 * G, 1);
    await stored.store();
    assert.deepEqual(await leftOnDisk(disk), { on: 3, off: 2, idle: 1, new: 1 });
  });
});

async function openImageBitmaps(file: Device): Promise<ImageBitmaps> {
  const host = new HostFile(file);
  const header = new LiveHeader(host, await readHeader(file));
  const allocator = await Allocator.open(host, header);
  return ImageBitmaps.open({ reader: readerOf(file), file: host, header, allocator });
}

async function leftOnDisk(disk: PowerCutDisk): Promise<Record<string, number | string>> {
  const image = await BitmapImage.open(new Device(new PowerCutDisk(disk.content).driver()), {});
  const left: Record<string, number | string> = {};
  for (const { name, inconsistent } of image.bitmaps.list()) {
    left[name] = inconsistent ? 'lacks' : (await image.load(name)).count;
  }
  await image.close();
  return left;
}
