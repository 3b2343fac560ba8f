import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BitmapImage, createQcow2, openBitmaps, openDevice } from 'lacuna';
import { Bitmap } from 'lacuna/bitmap';
import { expect, it } from 'vitest';
import { Qcow2Driver } from '#dist/block/drivers/qcow2/open/qcow2.js';
import { Device } from '#dist/block/index.js';
import { parseHeader } from '#dist/qcow2/index.js';
import { bytesDevice } from '../support/bytes-device.js';
import { runsOr } from '../support/long-run.js';
import { PowerCutDisk } from '../support/power-cut-disk.js';
import { checkImage } from '../support/qcow2-checker.js';
import { temporaryFolder } from '../support/temporary-folder.js';
import { Random } from '../unit/bitmap/random.js';

const SEED = Random.seed();
const SESSIONS = runsOr(1);
/** One in so many cuts is shown to QEMU as well. */
const SAMPLE = 60;
const SIZE = 2 ** 20 + 512;
const folder = temporaryFolder();

interface State {
  name: string;
  granularity: number;
  recording: boolean;
  digest?: string;
}

/** The bitmaps of an image; those that lack writes have no digest. */
async function stateOf(bytes: Uint8Array): Promise<State[]> {
  await using image = await BitmapImage.open(bytesDevice(bytes), {});
  const found: State[] = [];
  for (const { name, granularity, recording, inconsistent } of image.bitmaps.list()) {
    const bits = inconsistent ? undefined : await image.load(name);
    found.push({ name, granularity, recording, digest: bits?.digest() });
    bits?.free();
  }
  return found;
}

/** What may be left after each cut: all that was written, parts of it, and what was written last alone. */
function leftovers(disk: PowerCutDisk, random: Random): { cut: number; bytes: Buffer }[] {
  const left: { cut: number; bytes: Buffer }[] = [];
  disk.forEachCut((cut, content) => {
    const half = () => random.between(0, 1) === 0;
    for (const keep of [() => true, half, (isNewest: boolean) => isNewest]) {
      left.push({ cut, bytes: content(keep) });
    }
  });
  return left;
}

function checkByQemu(bytes: Buffer): void {
  const path = join(folder, 'cut.qcow2');
  writeFileSync(path, bytes);
  const { status, stdout, stderr } = spawnSync('qemu-img', ['check', path], { encoding: 'utf8' });
  assert.ok(status === 0 || status === 3, `qemu-img check: ${status} ${stdout}${stderr}`);
}

async function newImage(clusterSize: number, filename?: string): Promise<string> {
  const path = join(folder, 'disk.qcow2');
  const backing = filename === undefined ? undefined : { filename, format: 'raw' };
  if (backing !== undefined) writeFileSync(join(folder, 'base.raw'), new Uint8Array(SIZE));
  await createQcow2(path, { size: SIZE, clusterSize, backing });
  return path;
}

/** Most clusters are there already, and are written in place. */
async function fill(path: string): Promise<void> {
  await using device = await openDevice(path, { writable: true });
  await device.write(0, new Uint8Array(2 ** 19).fill(77));
}

/** Returns the name of a bitmap into which something was merged. */
function change(image: BitmapImage, random: Random): string | undefined {
  const { bitmaps } = image;
  const name = `b${random.between(0, 3)}`;
  if (!bitmaps.has(name)) {
    const granularity = random.pick([512, 4096, 65536]);
    const disabled = random.between(0, 1) === 0;
    bitmaps.add({ name, granularity, disabled, persistent: true });
  }
  const kind = random.pick(['merge', 'merge', 'clear', 'remove', 'enable', 'disable'] as const);
  if (kind !== 'merge') {
    bitmaps.transaction([{ type: kind, name }]);
    return undefined;
  }
  using bits = new Bitmap({ size: SIZE, granularity: 512 });
  const offset = random.between(0, SIZE - 1);
  bits.set(offset, random.between(0, SIZE - offset));
  bitmaps.merge(name, [bits]);
  return name;
}

/** As it is while bitmaps are marked: merged into, and not stored yet. */
function withMarks(state: readonly State[], names: ReadonlySet<string>): State[] {
  return state.map(({ name, granularity, recording, digest }) => {
    const good = digest === undefined || !names.has(name);
    return good
      ? { name, granularity, recording, digest }
      : { name, granularity, recording: false };
  });
}

/** Whether marks of these names, as many as there are, make one state of the other. */
function isMarkedAs(found: State[], state: State[], names: ReadonlySet<string>): boolean {
  const marked = found.filter(({ name, digest }) => digest === undefined && names.has(name));
  const expected = withMarks(state, new Set(marked.map(({ name }) => name)));
  return JSON.stringify(found) === JSON.stringify(expected);
}

it.each([
  [512, undefined],
  [4096, undefined],
  // The name stands where the extension must go, and is moved.
  [512, 'base.raw'],
  [4096, `${'./'.repeat(200)}base.raw`],
])(
  'a power cut while bitmaps are stored leaves the old ones or the new ones, clusters of %i, case %#',
  async (clusterSize, backing) => {
    for (let seed = SEED; seed < SEED + SESSIONS; seed++) {
      const random = new Random(seed);
      const disk = new PowerCutDisk(readFileSync(await newImage(clusterSize, backing)));
      const image = await BitmapImage.open(new Device(disk.driver()), { writable: true });
      const none = new Set<string>();
      const stored = [{ begun: 0, done: 0, state: await stateOf(disk.content), merged: none }];
      for (let i = 0; i < 6; i++) {
        for (const { name } of image.bitmaps.list()) await image.bitmaps.load(name);
        const merged = new Set<string>();
        stored[stored.length - 1].merged = merged;
        for (let n = random.between(0, 4); n >= 0; n--) merged.add(change(image, random) ?? '');
        const begun = disk.entries;
        await image.store();
        const state = await stateOf(disk.content);
        stored.push({ begun, done: disk.entries, state, merged: none });
      }
      await image.close();
      for (const { cut, bytes } of leftovers(disk, random)) {
        const last = stored.findLastIndex(({ done }) => done <= cut);
        const allowed = stored.filter(({ begun }, i) => i >= last && begun <= cut);
        const state = await stateOf(bytes);
        const one = allowed.some((each) => isMarkedAs(state, each.state, each.merged));
        assert.ok(
          one,
          `LACUNA_SEED=${seed}, cut ${cut}: neither old nor new: ${JSON.stringify(state)}`,
        );
        assert.deepEqual(checkImage(bytes).corruptions, [], `LACUNA_SEED=${seed}, cut ${cut}`);
        assert.equal(parseHeader(bytes, 'disk.qcow2').backingFile, backing);
        if (random.between(1, SAMPLE) === 1) checkByQemu(bytes);
      }
      checkByQemu(disk.content);
    }
  },
);

it.each([512, 4096])(
  'no power cut leaves a bitmap that looks whole and lacks a write, clusters of %i',
  async (clusterSize) => {
    for (let seed = SEED; seed < SEED + SESSIONS; seed++) {
      const random = new Random(seed);
      const path = await newImage(clusterSize);
      await fill(path);
      {
        await using image = await openBitmaps(path, { writable: true });
        image.bitmaps.add({ name: 'on', granularity: 512, persistent: true });
        image.bitmaps.add({ name: 'coarse', granularity: 65536, persistent: true });
        image.bitmaps.add({ name: 'off', granularity: 512, persistent: true, disabled: true });
        await image.store();
      }
      const disk = new PowerCutDisk(readFileSync(path));
      const before = Buffer.from(checkImage(disk.content).read());
      const [, , off] = await stateOf(disk.content);
      using written = new Bitmap({ size: SIZE, granularity: 512 });
      const { begun } = await writeSession(disk, path, random, written);

      for (const { cut, bytes } of leftovers(disk, random)) {
        const told = `LACUNA_SEED=${seed}, cut ${cut} of ${disk.entries}`;
        const states = await stateOf(bytes);
        assert.deepEqual(states[2], off, told);
        if (cut < begun) assert.ok(states[0].digest !== undefined, `${told}: marked for nothing`);
        const checked = checkImage(bytes);
        assert.deepEqual(checked.corruptions, [], told);
        await checkCover(bytes, before, Buffer.from(checked.read()), told);
        if (random.between(1, SAMPLE) === 1) checkByQemu(bytes);
      }
      const [on] = await stateOf(disk.content);
      expect(on.digest).toBe(written.digest());
      checkByQemu(disk.content);
    }
  },
);

/** Writes to an image as a device; returns where the first write began. */
async function writeSession(disk: PowerCutDisk, path: string, random: Random, written: Bitmap) {
  const file = { driver: 'file' as const, filename: path };
  const driver = await Qcow2Driver.open(
    { driver: 'qcow2', file },
    { above: [], open: async () => new Device(disk.driver()) },
  );
  const device = new Device(driver);
  await device.read(0, new Uint8Array(512));
  const begun = disk.entries;
  for (let i = 0; i < 8; i++) {
    const offset = random.between(0, SIZE / 512 - 1) * 512;
    const length = Math.min(SIZE - offset, random.between(1, 20) * 512);
    written.set(offset, length);
    const filler = random.between(1, 255);
    if (random.between(0, 3) === 0) await device.zero(offset, length);
    else await device.write(offset, new Uint8Array(length).fill(filler));
    if (random.between(0, 2) === 0) await device.flush();
  }
  await device.close();
  return { begun };
}

/** What differs must be dirty in every bitmap that records and claims to be whole. */
async function checkCover(bytes: Buffer, before: Buffer, now: Buffer, told: string): Promise<void> {
  await using image = await BitmapImage.open(bytesDevice(bytes), {});
  for (const { name, inconsistent, recording } of image.bitmaps.list()) {
    if (inconsistent || !recording) continue;
    using bits = await image.load(name);
    for (let at = 0; at < SIZE; at += 512) {
      if (bits.get(at) || before.compare(now, at, at + 512, at, at + 512) === 0) continue;
      assert.fail(`${told}: ${name} lacks the write at ${at}`);
    }
  }
}
