/** Snapshots, sizes, versions, repairs, images on devices: wherever such a change of tables is cut off, nothing is lost. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BitmapImage, createQcow2, openBitmaps, type Qcow2Options } from 'lacuna';
import { Bitmap } from 'lacuna/bitmap';
import { describe, expect, it } from 'vitest';
import { amendHeader } from '#dist/block/drivers/qcow2/amend/index.js';
import { Qcow2Driver } from '#dist/block/drivers/qcow2/open/qcow2.js';
import { repairRefcounts } from '#dist/block/drivers/qcow2/repair/index.js';
import {
  applySnapshot,
  createSnapshot,
  deleteSnapshot,
} from '#dist/block/drivers/qcow2/snapshots/index.js';
import { checkFile } from '#dist/block/images/check-file.js';
import { Device, finishQcow2On, layOutQcow2On } from '#dist/block/index.js';
import { parseHeader } from '#dist/qcow2/index.js';
import { bytesDevice } from '../support/bytes-device.js';
import { firesAfter } from '../support/fires-after.js';
import { firstSeed, runsOr } from '../support/long-run.js';
import { noise } from '../support/noise.js';
import { PowerCutDisk } from '../support/power-cut-disk.js';
import { checkImage } from '../support/qcow2-checker.js';
import { scribble } from '../support/scribble.js';
import { temporaryFolder } from '../support/temporary-folder.js';
import { Random } from '../unit/bitmap/random.js';

const SEED = firstSeed();
const SESSIONS = runsOr(1);
/** About so many cuts of each session are looked at, and the last ones. */
const CUTS = 4;
/** QEMU looks at one state in so many. */
const SAMPLE = 40;
const SIZE = 256 * 1024;
const DIRTY = 1n;

const folder = temporaryFolder();
const path = join(folder, 'disk.qcow2');

const KINDS: Record<string, Omit<Qcow2Options, 'size'>> = {
  'small clusters': { clusterSize: 4096 },
  'tiny clusters with wide refcounts': { clusterSize: 512, refcountBits: 64 },
  'version 2': { clusterSize: 1024, version: 2 },
  subclusters: { clusterSize: 16_384, extendedL2: true },
};

/** What the disk shows, and each snapshot. */
interface Shown {
  readonly disk: Buffer;
  readonly snapshots: readonly Buffer[];
}

const now = { date: new Date(1_700_000_000_000) };

/**
 * What an image shows, and what a checker says of it without what may lag behind: what clusters say of being alone. No
 * cluster may ever be counted less often than it is used.
 */
function lookAt(bytes: Uint8Array) {
  const copy = Buffer.from(bytes);
  const version = copy.readUInt32BE(4);
  const isMarked = version > 2 && (copy.readBigUInt64BE(72) & DIRTY) !== 0n;
  if (isMarked) copy.writeBigUInt64BE(copy.readBigUInt64BE(72) & ~DIRTY, 72);
  const checked = checkImage(copy);
  const { snapshotCount } = parseHeader(copy, path);
  const indexes = Array.from({ length: snapshotCount }, (_, index) => index);
  const shown: Shown = {
    disk: Buffer.from(checked.read()),
    snapshots: indexes.map((index) => Buffer.from(checked.readSnapshot(index))),
  };
  const lagging = /is alone, and denies it|claims to be alone/;
  const others = checked.corruptions.filter((found) => !lagging.test(found));
  return { ...checked, version, shown, isMarked, others };
}

/** Opens for writing what a cut has left, as the next user would. */
async function reopened(bytes: Buffer): Promise<Buffer> {
  const disk = new PowerCutDisk(bytes);
  const file = new Device(disk.driver());
  await repairRefcounts(file, parseHeader(bytes, path));
  return disk.content;
}

function checkByQemu(bytes: Buffer, version: number): void {
  const cut = join(folder, 'cut.qcow2');
  writeFileSync(cut, bytes);
  // As a program of QEMU that opens it for writing does by itself, where the image says that it was not closed.
  const args = version > 2 ? ['check', '-f', 'qcow2'] : ['check', '-r', 'all', '-f', 'qcow2'];
  const { status, stdout, stderr } = spawnSync('qemu-img', [...args, cut], { encoding: 'utf8' });
  assert.ok(status === 0 || status === 3, `qemu-img check: ${status} ${stdout}${stderr}`);
}

type Change = (file: Device, size: number) => Promise<unknown>;

const CHANGES: Record<string, Change> = {
  'a snapshot that is taken': (file) => createSnapshot(file, 'new', now),
  'a snapshot that is applied': (file) => applySnapshot(file, 's0', {}),
  'the newest snapshot that is applied': (file) => applySnapshot(file, 's1', {}),
  'a snapshot that is deleted': (file) => deleteSnapshot(file, 's0', {}),
  'a disk that becomes smaller': async (file, size) => {
    const driver = await openDriver(file);
    await driver.shrink(size);
    await driver.close();
  },
  'a disk that becomes larger, with all of it laid out': async (file, size) => {
    const driver = await openDriver(file);
    await driver.grow(SIZE + size, { reserved: 'metadata' });
    await driver.close();
  },
  'a disk that was to become larger': async (file, size) => {
    const driver = await openDriver(file);
    const how = { reserved: 'full', signal: firesAfter(2) } as const;
    await expect(driver.grow(SIZE + size, how)).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await driver.close();
  },
  'a repair of what an earlier cut has left': (file) => checkFile(file, { repair: 'all' }),
  'another version of the format': async (file) => {
    const { version } = parseHeader(await firstCluster(file), path);
    await amendHeader(file, { version: version === 2 ? 3 : 2 }, undefined);
  },
};

function openDriver(file: Device, mapping?: 'unfinished'): Promise<Qcow2Driver> {
  const description = { driver: 'qcow2', file: { driver: 'file', filename: path } } as const;
  return Qcow2Driver.open(
    { ...description, backing: null, ...(mapping && { mapping }) },
    { above: [], open: async () => file },
  );
}

/** What a snapshot that is taken may leave, where the power is cut then. */
async function cutSnapshot(image: Buffer, random: Random): Promise<Buffer> {
  const disk = new PowerCutDisk(image);
  await createSnapshot(new Device(disk.driver()), 'cut', now);
  return random.pick(leftovers(disk, random)).bytes;
}

/** Kinds that can have another version in place. */
const OF_ANY_VERSION = ['small clusters', 'version 2'];

async function firstCluster(file: Device): Promise<Uint8Array> {
  const bytes = new Uint8Array(4096);
  await file.read(0, bytes);
  return bytes;
}

/** An image with two snapshots, unless it is of a kind that could not be resized then. */
async function makeImage(options: Omit<Qcow2Options, 'size'>, random: Random, snapshots: number) {
  await createQcow2(path, { ...options, size: SIZE });
  scribble(path, SIZE, random, 60);
  for (let i = 0; i < snapshots; i++) {
    spawnSync('qemu-img', ['snapshot', '-c', `s${i}`, path]);
    scribble(path, SIZE, random, 60);
  }
  return readFileSync(path);
}

async function cutEverywhere(kind: string, what: string, seed: number): Promise<number> {
  const random = new Random(seed);
  const options = KINDS[kind];
  const { version = 3 } = options;
  // Version 2 does not resize what has snapshots, and what they hold may be what it has not.
  const isAlone = what.startsWith('a disk') ? version === 2 : what.startsWith('another');
  const made = await makeImage(options, random, isAlone ? 0 : 2);
  const before = what.startsWith('a repair') ? await cutSnapshot(made, random) : made;
  const disk = new PowerCutDisk(before);
  const size = 512 * (100 + random.between(0, SIZE / 512 - 201));
  await CHANGES[what](new Device(disk.driver()), size);
  const { shown: old } = lookAt(before);
  const end = lookAt(disk.content);
  expect(end).toMatchObject({ corruptions: [], leaks: 0, isMarked: false });
  checkByQemu(disk.content, 3);

  const states = leftovers(disk, random);
  for (const { cut, bytes } of states) {
    const where = `LACUNA_SEED=${seed}: cut at entry ${cut} of ${disk.entries}`;
    const { others, isMarked, shown, corruptions, version } = lookAt(bytes);
    assert.deepEqual(others, [], where);
    const isKnown = isSame(shown, old) || isSame(shown, end.shown);
    assert.ok(isKnown, `${where}: neither as before nor as after`);
    const isAsked = random.between(1, SAMPLE) === 1;
    if (isMarked) {
      const repaired = await reopened(bytes);
      const now = lookAt(repaired);
      assert.deepEqual([now.corruptions, now.leaks], [[], 0], `${where}, repaired`);
      assert.ok(isSame(now.shown, shown), `${where}, repaired`);
      if (isAsked) checkByQemu(repaired, 3);
    } else if (version > 2) {
      // What was not marked must be sound as it is, but for clusters that leak.
      assert.deepEqual(corruptions, [], `${where}, not marked`);
    } else if (isAsked) checkByQemu(bytes, version);
  }
  return states.length;
}

/** What may be left at some of the cuts, and at the last ones. */
function leftovers(disk: PowerCutDisk, random: Random): { cut: number; bytes: Buffer }[] {
  const states: { cut: number; bytes: Buffer }[] = [];
  const step = Math.ceil(disk.entries / CUTS);
  disk.forEachCut((cut, content) => {
    if (cut + 4 < disk.entries && random.between(1, step) > 1) return;
    const half = () => random.between(0, 1) === 0;
    for (const keep of [() => true, half, (isNewest: boolean) => isNewest]) {
      states.push({ cut, bytes: content(keep) });
    }
  });
  return states;
}

function isSame(a: Shown, b: Shown): boolean {
  if (a.snapshots.length !== b.snapshots.length || !a.disk.equals(b.disk)) return false;
  return a.snapshots.every((bytes, i) => bytes.equals(b.snapshots[i]));
}

describe.each(Object.keys(KINDS))('a power cut at any moment, %s,', (kind) => {
  const changes = Object.keys(CHANGES).filter((what) => {
    return !what.startsWith('another') || OF_ANY_VERSION.includes(kind);
  });
  it.each(changes)('leaves the image before or after %s', async (what) => {
    let points = 0;
    for (let seed = SEED; seed < SEED + SESSIONS; seed++) {
      points += await cutEverywhere(kind, what, seed);
    }
    expect(points).toBeGreaterThan(0);
  });
});

describe('bitmaps of an image whose snapshot is applied', () => {
  it('are inconsistent or dirty as a whole once the disk is another one, wherever the power is cut', async () => {
    await createQcow2(path, { size: SIZE, clusterSize: 4096 });
    scribble(path, SIZE, new Random(SEED), 60);
    spawnSync('qemu-img', ['snapshot', '-c', 's0', path]);
    scribble(path, SIZE, new Random(SEED + 1), 60);
    {
      await using image = await openBitmaps(path, { writable: true });
      image.bitmaps.add({ name: 'records', persistent: true });
      image.bitmaps.add({ name: 'rests', persistent: true, disabled: true });
      await image.store();
    }
    const before = readFileSync(path);
    const disk = new PowerCutDisk(before);
    await applySnapshot(new Device(disk.driver()), 's0', {});
    const old = lookAt(before).shown.disk;
    const states: Buffer[] = [];
    disk.forEachCut((_cut, content) => {
      for (const keep of [() => true, (isNewest: boolean) => isNewest]) states.push(content(keep));
    });
    for (const bytes of states) {
      const isNew = !lookAt(bytes).shown.disk.equals(old);
      await using image = await BitmapImage.open(bytesDevice(bytes), {});
      const [records, rests] = image.bitmaps.list();
      expect([records.name, rests.name]).toEqual(['records', 'rests']);
      expect(rests.inconsistent).toBe(false);
      if (!isNew || records.inconsistent) continue;
      using bits = await image.load('records');
      expect(bits.dirtyBytes).toBe(SIZE);
    }
    await using image = await BitmapImage.open(bytesDevice(disk.content), {});
    using bits = await image.load('records');
    expect(bits.dirtyBytes).toBe(SIZE);
    using none = await image.load('rests');
    expect(none.dirtyBytes).toBe(0);
  });
});

describe('an image that is made over what a device holds', () => {
  const QFI = Buffer.from('QFI\xfb', 'latin1');

  it.each([2, 3] as const)(
    'is what was there, or none, or whole, wherever the power is cut: version %s',
    async (version) => {
      const random = new Random(SEED);
      const clusterSize = 4096;
      await createQcow2(path, { size: SIZE, clusterSize });
      scribble(path, SIZE, random, 60);
      const before = Buffer.concat([readFileSync(path), noise(2 * SIZE)]);
      const shown = noise(SIZE);
      const disk = new PowerCutDisk(before);
      const file = new Device(disk.driver());
      using mapped = new Bitmap({ size: SIZE, granularity: clusterSize });
      for (let at = 0; at < SIZE; at += 8 * clusterSize) {
        mapped.set(at, 3 * clusterSize);
        shown.fill(0, at + 3 * clusterSize, at + 8 * clusterSize);
      }
      await layOutQcow2On(file, { size: SIZE, clusterSize, version }, mapped, () => {});
      const driver = await openDriver(file, 'unfinished');
      for (const { offset, length } of mapped.ranges()) {
        await driver.write(offset, shown.subarray(offset, offset + length), {});
      }
      await driver.flush();
      await driver.close();
      const whole = new Device(disk.driver());
      await finishQcow2On(whole);
      await whole.flush();

      const seen = new Set<string>();
      for (const { cut, bytes } of leftovers(disk, random)) {
        const isImage = bytes.subarray(0, 4).equals(QFI);
        const isOld = bytes.subarray(0, before.length).equals(before);
        seen.add(isOld ? 'old' : isImage ? 'new' : 'none');
        if (isOld || !isImage) continue;
        const { corruptions, read } = checkImage(bytes);
        assert.deepEqual(corruptions, [], `cut at entry ${cut}`);
        assert.ok(Buffer.from(read()).equals(shown), `cut at entry ${cut}`);
      }
      expect([...seen].sort()).toEqual(['new', 'none', 'old']);
      checkByQemu(disk.content, 3);
    },
  );
});
