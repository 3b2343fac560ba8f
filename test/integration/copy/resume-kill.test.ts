/** A copy with a resume file may be killed at any moment: the next run finishes it, and does nothing twice. */
import { type ChildProcess, execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type Bitmap, BitmapFile } from 'lacuna/bitmap';
import { afterAll, describe, expect, test } from 'vitest';
import type { Device } from '#dist/block/index.js';
import { Random } from '#dist/testing/index.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { firstSeed, runsOr } from '../../support/long-run.js';
import { emptied, serveDevice } from '../../support/nbd-server.js';
import { type CliResult, runCli } from '../../support/run-cli.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { VolatileDisk } from '../../support/volatile-disk.js';

/** Moments of death, in all. */
const KILLS = runsOr(12);

const KiB = 1024;
const REQUEST = 4 * KiB;
const SIZE = 6 * KiB * KiB;
/** One copy is killed so often at most. */
const KILLS_PER_COPY = 3;

const random = new Random(firstSeed());
const top = temporaryFolder();
let [killed, confirmedBytes, seen] = [0, 0, 0];
afterAll(() => {
  console.log(
    `${killed} kills hit a copy; ${seen} of them after ${confirmedBytes} bytes confirmed`,
  );
});

/** Data with holes of many sizes, the same for every test. */
const content = new Uint8Array(SIZE);
for (let at = 0, run = 0; at < SIZE; run++) {
  const length = Math.min(SIZE - at, ((run * 7919) % 97) * REQUEST + REQUEST);
  if (run % 3 !== 2) content.set(pattern(length, run), at);
  at += length;
}

/** A place that a copy can read from or write to, and what can be known of it. */
interface Place {
  /** What the command is given. */
  name: string;
  /** Offsets and lengths of the requests that it noted, since it was asked last. */
  requests?(): Promise<{ offset: number; length: number }[]>;
  cutPower?(): void;
  /** What it holds, finished or not. */
  bytes(): Uint8Array;
}

async function slowSource(): Promise<Place> {
  const memory = fakeDevice(SIZE);
  for (let at = 0; at < SIZE; at += 65536) {
    const piece = content.subarray(at, at + 65536);
    if (piece.some((byte) => byte !== 0)) await memory.write(at, piece);
  }
  const reads: { offset: number; length: number }[] = [];
  const device: Device = new Proxy(memory, {
    get(target, key) {
      if (key !== 'read') {
        const value = Reflect.get(target, key, target);
        return typeof value === 'function' ? value.bind(target) : value;
      }
      return async (offset: number, bytes: Uint8Array) => {
        await new Promise((resolve) => setTimeout(resolve, random.below(6)));
        reads.push({ offset, length: bytes.length });
        await target.read(offset, bytes);
      };
    },
  });
  const { uri, server } = await serveDevice(device);
  const requests = async () => {
    await emptied(server);
    return reads.splice(0);
  };
  return { name: uri, requests, bytes: () => content };
}

async function volatileTarget(): Promise<Place> {
  const disk = new VolatileDisk({ content: pattern(SIZE, 99), delayMs: 6, random });
  const { uri, server } = await serveDevice(disk.device);
  const requests = async () => {
    await emptied(server);
    return disk.writes.splice(0);
  };
  return { name: uri, requests, cutPower: () => disk.cutPower(), bytes: () => disk.bytes };
}

function fileSource(folder: string): Place {
  const name = join(folder, 'source.raw');
  writeFileSync(name, content);
  execFileSync('fallocate', ['--dig-holes', name]);
  return { name, bytes: () => content };
}

function fileTarget(folder: string): Place {
  const name = join(folder, 'target.raw');
  const bytes = () => {
    const partial = readdirSync(folder).find((file) => file.startsWith('target.raw'));
    return readFileSync(join(folder, partial!));
  };
  return { name, bytes };
}

interface Work {
  source(folder: string): Place | Promise<Place>;
  target(folder: string): Place | Promise<Place>;
  args: string[];
  env?: NodeJS.ProcessEnv;
  /** What keeps it from being over at once, where nothing else does. */
  rate?: string;
  /** About how long the copy takes after its process has started. */
  takesMs: number;
}

const WORKS: Record<string, Work> = {
  'NBD to a file, on the calling thread': {
    source: slowSource,
    target: fileTarget,
    args: ['--threads', '0'],
    takesMs: 900,
  },
  'NBD to a file, in threads': {
    source: slowSource,
    target: fileTarget,
    args: ['--threads', '2'],
    takesMs: 900,
  },
  'NBD to NBD, on the calling thread': {
    source: slowSource,
    target: volatileTarget,
    args: ['--threads', '0'],
    takesMs: 1800,
  },
  'NBD to NBD, in threads': {
    source: slowSource,
    target: volatileTarget,
    args: ['--threads', '3'],
    takesMs: 1200,
  },
  'a file to NBD, in threads': {
    source: fileSource,
    target: volatileTarget,
    args: ['--threads', '2', '--detect-zeroes', 'unmap'],
    takesMs: 900,
  },
  'a file to a file, on the calling thread': {
    source: fileSource,
    target: fileTarget,
    args: ['--threads', '0'],
    // Or the kernel would copy it at once.
    env: { LACUNA_FFI: 'off' },
    rate: '6M',
    takesMs: 700,
  },
};

/** What a resume file does not count as remaining; undefined when there is none yet. */
function confirmedBy(file: string): Bitmap | undefined {
  if (!existsSync(file) || statSync(file).size === 0) return undefined;
  const bitmaps = BitmapFile.open(file, { readOnly: true });
  if (bitmaps.bitmaps.length === 0) {
    // It only notes which file is about to be made.
    bitmaps.close();
    return undefined;
  }
  expect(bitmaps.size).toBe(SIZE);
  const confirmed = bitmaps.load('data');
  const zero = bitmaps.load('zero');
  confirmed.merge(zero);
  zero.free();
  bitmaps.close();
  const remains = confirmed.snapshot();
  confirmed.setAll();
  confirmed.subtract(remains);
  remains.free();
  return confirmed;
}

/** Runs the command; it is dead when this resolves, by its end or by ours. */
function runAndKill(args: string[], env: NodeJS.ProcessEnv, afterMs?: number): Promise<CliResult> {
  let timer: NodeJS.Timeout | undefined;
  const started = (child: ChildProcess) => {
    if (afterMs !== undefined) timer = setTimeout(() => child.kill('SIGKILL'), afterMs);
  };
  return runCli(args, { env, started }).finally(() => clearTimeout(timer));
}

async function copyAndKill(work: Work, kills: number): Promise<void> {
  const folder = mkdtempSync(join(top, 'copy-'));
  const source = await work.source(folder);
  const target = await work.target(folder);
  const file = join(folder, 'resume');
  const env = work.env ?? {};
  const small = ['--request-size', `${REQUEST}`, '--requests', '3'];
  const args = [
    'copy',
    '--json',
    ...small,
    '--resume',
    file,
    ...(work.rate === undefined ? [] : ['--rate', work.rate]),
    ...work.args,
    source.name,
    target.name,
  ];
  let confirmed: Bitmap | undefined;
  for (let kill = 0; ; kill++) {
    const last = kill === kills;
    const afterMs = last ? undefined : 100 + random.below(150 + work.takesMs);
    const { code, stdout, stderr } = await runAndKill(args, env, afterMs);
    if (last) expect(code, stderr).toBe(0);
    for (const place of [source, target]) {
      for (const { offset, length } of (await place.requests?.()) ?? []) {
        const twice = confirmed?.countIn(offset, length) ?? 0;
        expect(twice, `bytes at ${offset} that were confirmed, and are moved again`).toBe(0);
      }
    }
    if (code !== null) {
      expect(code, stderr).toBe(0);
      const report = JSON.parse(stdout.trimEnd().split('\n').at(-1)!);
      const { movedBytes, zeroedBytes, skippedBytes, resumedBytes } = report;
      expect(movedBytes + zeroedBytes + skippedBytes + resumedBytes).toBe(SIZE);
      break;
    }
    killed++;
    target.cutPower?.();
    confirmed?.free();
    confirmed = confirmedBy(file);
    if (confirmed === undefined) continue;
    if (confirmed.dirtyBytes > 0) seen++;
    confirmedBytes += confirmed.dirtyBytes;
    const bytes = target.bytes();
    for (const { offset, length } of confirmed.ranges()) {
      const end = offset + length;
      const same = Buffer.compare(bytes.subarray(offset, end), content.subarray(offset, end)) === 0;
      expect(same, `what was confirmed at ${offset} is there`).toBe(true);
    }
  }
  confirmed?.free();
  expect(Buffer.compare(target.bytes(), content)).toBe(0);
  const left = readdirSync(folder).filter((name) => !name.endsWith('.raw'));
  expect(left, 'nothing is left behind').toEqual([]);
}

describe('a copy that is killed at random moments and resumed, from', () => {
  const names = Object.keys(WORKS);
  test.each(names)('%s', async (name) => {
    const wanted = Math.ceil(KILLS / names.length);
    let left = wanted;
    // A copy that was quicker than its killer is tried again, but on no machine for ever.
    for (let copies = 0; left > 0 && copies < 5 * wanted; copies++) {
      const before = killed;
      await copyAndKill(WORKS[name], Math.min(left, KILLS_PER_COPY));
      left -= killed - before;
    }
  });
});
