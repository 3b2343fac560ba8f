import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openDevice } from 'lacuna';
import { Random } from 'lacuna/testing';
import { expect, it } from 'vitest';
import { Qcow2Driver } from '#dist/block/drivers/qcow2/open/qcow2.js';
import { Device } from '#dist/block/index.js';
import { firstSeed, runsOr } from '../support/long-run.js';
import { type Keep, PowerCutDisk } from '../support/power-cut-disk.js';
import { checkImage } from '../support/qcow2-checker.js';
import {
  type ImageKind,
  type MadeImage,
  makeImage,
  sectorOf,
  sectorsOf,
  writerOf,
} from '../support/qcow2-images.js';
import { temporaryFolder } from '../support/temporary-folder.js';

/** Cut points in all. */
const RUNS = runsOr(800);
const SEED = firstSeed();
/** QEMU looks at one state in so many. */
const SAMPLE = 150;

/** Sectors of the disk, where a kind says nothing else. */
const SECTORS = 1024;

interface Kind extends ImageKind {
  readonly sectors?: number;
  /** Rounds of requests. */
  readonly rounds?: number;
  /** The refcount table moves: it was nearly full. */
  readonly grows?: boolean;
  /** What is written is compressed. */
  readonly compress?: boolean;
  /** Sectors that the disk grows to, half way. */
  readonly growsTo?: number;
}

const KINDS: Record<string, Kind> = {
  'small clusters': { options: { clusterSize: 4096 } },
  'tiny clusters with wide refcounts, so that blocks are added': {
    options: { clusterSize: 512, refcountBits: 64 },
  },
  'a snapshot of a full image, so that the refcount table grows': {
    options: { clusterSize: 512, refcountBits: 64, preallocation: 'metadata' },
    content: 'snapshot',
    sectors: 3584,
    rounds: 3,
    grows: true,
  },
  'a disk that grows over a longer backing file, and its L1 table with it': {
    options: { clusterSize: 512 },
    backing: 1500,
    content: 'snapshot',
    rounds: 4,
    growsTo: 6000,
  },
  'version 2 over a backing file': { options: { clusterSize: 1024, version: 2 }, backing: 700 },
  'refcounts of one bit': { options: { clusterSize: 2048, refcountBits: 1 } },
  'a backing file that is shorter': { options: { clusterSize: 8192 }, backing: 777 },
  'subclusters over a backing file': {
    options: { clusterSize: 16_384, extendedL2: true },
    backing: 900,
  },
  'a snapshot': { options: { clusterSize: 4096 }, content: 'snapshot' },
  'a snapshot with subclusters': {
    options: { clusterSize: 16_384, extendedL2: true },
    content: 'snapshot',
  },
  'compressed clusters': { options: { clusterSize: 4096 }, content: 'compressed' },
  'clusters that are compressed as they are written': {
    options: { clusterSize: 4096 },
    compress: true,
  },
  'clusters that are compressed over a backing file, where few fit into one': {
    options: { clusterSize: 16_384, extendedL2: true, refcountBits: 2 },
    backing: 700,
    compress: true,
  },
  'preallocated metadata': { options: { clusterSize: 4096, preallocation: 'metadata' } },
};

const folder = temporaryFolder();

/** One request of the guest. */
interface Request {
  readonly writer: number;
  readonly first: number;
  readonly count: number;
  /** Sectors that it changed, where that is not all of them: a discard may leave some. */
  changed?: (sector: number) => boolean;
  /** Entry of the log at which it was sent. */
  readonly start: number;
  /** Step of the session in which it was answered. */
  answered: number;
}

interface History {
  readonly initial: readonly number[];
  readonly requests: Request[];
  /** Flushes of the guest that succeeded: the step in which each was sent, and the entry of the log at its end. */
  readonly flushes: { sent: number; end: number }[];
  /** Counts what is sent and what is answered: much of it happens in memory, between two entries of the log. */
  steps: number;
}

/** A range of sectors, often whole clusters, and one that overlaps none that is in flight. */
function pickRange(
  random: Random,
  device: Device,
  busy: readonly Request[],
): [number, number] | undefined {
  const sectors = device.size / 512;
  const unit = random.pick([1, 1, 7, Math.max(1, device.limits.zeroAlignment / 512)]);
  const first = Math.floor(random.below(sectors) / unit) * unit;
  const count = Math.min(
    sectors - first,
    (1 + random.below(random.pick([3, 20, sectors / 16]))) * unit,
  );
  const overlaps = (other: Request) =>
    other.first < first + count && first < other.first + other.count;
  return busy.some(overlaps) ? undefined : [first, count];
}

/** Sends random requests, some side by side. */
async function session(
  device: Device,
  disk: PowerCutDisk,
  random: Random,
  history: History,
  rounds = 12,
) {
  let writer = 10 + history.requests.length;
  for (let round = 0; round < rounds; round++) {
    const busy: Request[] = [];
    const running: Promise<void>[] = [];
    const discarded: Request[] = [];
    for (let i = 1 + random.below(4); i > 0; i--) {
      const range = pickRange(random, device, busy);
      if (range === undefined) continue;
      const [first, count] = range;
      const kind = random.pick(['write', 'write', 'write', 'zero', 'discard']);
      const request: Request = {
        writer: kind === 'write' ? writer++ : 0,
        first,
        count,
        start: disk.entries,
        answered: Number.POSITIVE_INFINITY,
      };
      const send = () => {
        if (kind === 'write')
          return device.write(first * 512, sectorsOf(request.writer, first, count));
        if (kind === 'discard') return device.discard(first * 512, count * 512);
        return device.zero(first * 512, count * 512, { unmap: random.below(2) === 0 });
      };
      busy.push(request);
      history.requests.push(request);
      if (kind === 'discard') discarded.push(request);
      running.push(
        send().then(() => {
          request.answered = ++history.steps;
        }),
      );
    }
    if (random.below(3) === 0) running.push(flush(device, disk, history));
    await Promise.all(running);
    for (const request of discarded) {
      const bytes = Buffer.alloc(request.count * 512);
      await device.read(request.first * 512, bytes);
      request.changed = (sector) => {
        const at = (sector - request.first) * 512;
        return sectorOf(0, sector).equals(bytes.subarray(at, at + 512));
      };
    }
    if (random.below(3) === 0) await flush(device, disk, history);
  }
}

/** Writes sectors in a row. */
async function overwrite(
  device: Device,
  disk: PowerCutDisk,
  history: History,
  first: number,
  count: number,
) {
  const writer = 10_000 + history.requests.length;
  const start = disk.entries;
  const request: Request = { writer, first, count, start, answered: Number.POSITIVE_INFINITY };
  history.requests.push(request);
  await device.write(first * 512, sectorsOf(writer, first, count));
  request.answered = ++history.steps;
}

async function flush(device: Device, disk: PowerCutDisk, history: History): Promise<void> {
  const sent = ++history.steps;
  await device.flush();
  history.flushes.push({ sent, end: disk.entries });
}

/** Which writers a sector may show after a cut: the one whom the last flush made durable, and all who came later. */
function allowedWriters(
  { initial, requests, flushes }: History,
  cut: number,
): (sector: number) => number[] {
  const flushed = flushes.findLast(({ end }) => end <= cut);
  const began = requests.filter(({ start }) => start <= cut);
  return (sector) => {
    let allowed = [initial[sector] ?? 0];
    for (const request of began) {
      const { writer, first, count, answered, changed } = request;
      if (sector < first || sector >= first + count) continue;
      if (changed !== undefined && !changed(sector)) continue;
      if (flushed !== undefined && answered < flushed.sent) allowed = [];
      allowed.push(writer);
    }
    return allowed;
  };
}

function checkContent(disk: Uint8Array, allowed: (sector: number) => number[]): void {
  const bytes = Buffer.from(disk.buffer, disk.byteOffset, disk.byteLength);
  for (let sector = 0; sector < bytes.length / 512; sector++) {
    const writers = allowed(sector);
    const by = writerOf(bytes, sector);
    if (by !== undefined && writers.includes(by)) continue;
    const start = bytes.toString('hex', sector * 512, sector * 512 + 8);
    assert.fail(`sector ${sector} shows writer ${by} (it begins with ${start}), not ${writers}`);
  }
}

/** What QEMU says: leaks are allowed, errors are not. */
function checkByQemu(content: Buffer): void {
  const path = join(folder, 'cut.qcow2');
  writeFileSync(path, content);
  const { status, stdout, stderr } = spawnSync('qemu-img', ['check', '-f', 'qcow2', path], {
    encoding: 'utf8',
  });
  assert.ok(status === 0 || status === 3, `qemu-img check: ${status} ${stdout}${stderr}`);
}

async function open(image: MadeImage, disk: PowerCutDisk, compress = false) {
  const own = { driver: 'file' as const, filename: image.path };
  const { backingPath } = image;
  const backing =
    backingPath === undefined ? null : { driver: 'file' as const, filename: backingPath };
  const driver = await Qcow2Driver.open(
    { driver: 'qcow2', file: own, backing, compress },
    {
      above: [],
      open: async (description) =>
        description === undefined ||
        (description.driver === 'file' && description.filename === image.path)
          ? new Device(disk.driver())
          : openDevice(description),
    },
  );
  return { driver, device: new Device(driver) };
}

/** Runs one session and cuts it everywhere; returns at how many points. */
async function cutEverywhere(kind: Kind, seed: number): Promise<number> {
  const random = new Random(seed);
  const image = await makeImage(folder, kind, kind.sectors ?? SECTORS);
  const disk = new PowerCutDisk(image.bytes);
  const history: History = { initial: image.writers, requests: [], flushes: [], steps: 0 };
  const { driver, device } = await open(image, disk, kind.compress);
  if (kind.grows) await overwrite(device, disk, history, 100, 640);
  await session(device, disk, random, history, kind.rounds);
  if (kind.growsTo !== undefined) {
    // Every L2 table is new when the L1 table moves.
    for (let first = 0; first < SECTORS; first += 64)
      await overwrite(device, disk, history, first, 1);
    await driver.grow(kind.growsTo * 512);
    await session(device, disk, random, history, kind.rounds);
  }
  const sent = ++history.steps;
  await device.close();
  history.flushes.push({ sent, end: disk.entries });

  const movedTable = disk.content.readBigUInt64BE(48) !== image.bytes.readBigUInt64BE(48);
  if (kind.grows) expect(movedTable).toBe(true);

  let points = 0;
  disk.forEachCut((cut, content) => {
    const allowed = allowedWriters(history, cut);
    const survivals: Record<string, Keep> = {
      'all that was written': () => true,
      'only the newest write': (isNewest) => isNewest,
      'half of the sectors': () => random.below(2) === 0,
    };
    for (const [what, keep] of Object.entries(survivals)) {
      const left = content(keep);
      try {
        const checked = checkImage(left);
        assert.deepEqual(checked.corruptions, [], 'corruptions');
        checkContent(checked.read(image.backing), allowed);
        if (kind.content === 'snapshot') {
          checkContent(checked.readSnapshot(0, image.backing), (sector) => [image.writers[sector]]);
        }
        if (random.below(SAMPLE) === 0) checkByQemu(left);
      } catch (cause) {
        const where = `cut at entry ${cut} of ${disk.entries}`;
        throw new Error(`LACUNA_SEED=${seed}: ${where}, ${what} is left of what was not flushed`, {
          cause,
        });
      }
      points++;
    }
  });
  const closed = checkImage(disk.content);
  expect(closed).toMatchObject({ corruptions: [], leaks: 0 });
  checkByQemu(disk.content);
  return points;
}

it.each(Object.entries(KINDS))(
  'a power cut at any moment loses nothing that was flushed: %s',
  async (_name, kind) => {
    const wanted = RUNS / Object.keys(KINDS).length;
    let points = 0;
    for (let seed = SEED; points < wanted; seed++) points += await cutEverywhere(kind, seed);
    console.log(`LACUNA_SEED=${SEED}: ${points} cut points`);
  },
);
