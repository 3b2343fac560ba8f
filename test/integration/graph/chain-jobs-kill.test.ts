/** Processes that are killed while a job moves their disk, layers of it, or copies it: what is left can be opened, and shows what it must. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkQcow2, createQcow2, openBitmaps, openDevice } from 'lacuna';
import { Random } from 'lacuna/testing';
import { test } from 'vitest';
import {
  GRANULE,
  granulesOf,
  type Layer,
  makeChain,
  shownBy,
} from '../../support/layered-graph.js';
import { firstSeed, runsOr } from '../../support/long-run.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const GRANULES = 96;
const KILLS = runsOr(10, 200);
const JOBS = [
  'stream of all',
  'stream to a base',
  'stream in the middle',
  'commit of the middle',
  'commit of the top',
  'mirror of all',
  'mirror of what is written',
  'backup of what is dirty',
];
const IMAGES = ['0.qcow2', '1.qcow2', '2.qcow2', 'copy.qcow2'];

const random = new Random(firstSeed());

/** A layer of chance: each granule holds a value below 10, or zeroes, or nothing. */
function layer(): Layer {
  return Array.from({ length: GRANULES }, () =>
    random.below(2) === 0 ? undefined : random.below(10),
  );
}

async function makeDisk(): Promise<readonly Layer[]> {
  const layers = [layer(), layer().slice(0, random.pick([GRANULES, GRANULES / 2])), layer()];
  for (const name of ['log', ...IMAGES]) rmSync(name, { force: true });
  await makeChain(layers);
  await createQcow2('copy.qcow2', { size: GRANULES * GRANULE });
  for (const name of ['0.qcow2', '2.qcow2']) {
    await using image = await openBitmaps(name, { writable: true });
    image.bitmaps.add({ name: 'b', granularity: GRANULE, persistent: true });
    await image.store();
  }
  return layers;
}

/** Lets a process write and run a job for a while, and ends it without a warning. */
async function killAtSomeMoment(job: string): Promise<void> {
  const script = new URL('./chain-worker.mjs', import.meta.url).pathname;
  const args = [script, job, 'log', String(1 + random.below(2 ** 31 - 1))];
  const child = spawn(process.execPath, args, { stdio: 'inherit' });
  const ended = once(child, 'exit');
  const hasBegun = () => existsSync('log') && readFileSync('log', 'utf8').includes('job');
  while (!hasBegun() && child.exitCode === null) await sleep(2);
  await sleep(random.below(300));
  child.kill('SIGKILL');
  const [code, signal] = await ended;
  assert.equal(
    signal,
    'SIGKILL',
    `it ended by itself with ${code}: ${readFileSync('log', 'utf8')}`,
  );
}

/** What the log says: for each granule the values that it may have now, and those that were written at all. */
function noted(layers: readonly Layer[]) {
  const may = shownBy(layers).map((value) => new Set([value]));
  const last = may.map((values) => [...values][0]);
  const written = new Set<number>();
  const lines = readFileSync('log', 'utf8').split('\n');
  for (const line of lines) {
    const [word, granule, value] = line.split(' ');
    if (word === 'flushed') for (const [i, one] of last.entries()) may[i] = new Set([one]);
    if (word !== 'write') continue;
    may[Number(granule)].add(Number(value));
    last[Number(granule)] = Number(value);
    written.add(Number(granule));
  }
  return { may, written, words: new Set(lines.map((line) => line.split(' ')[0])) };
}

async function expectShows(path: string, may: readonly Set<number>[]): Promise<void> {
  await using device = await openDevice(path);
  const shown = await granulesOf(device);
  const wrong = shown.flatMap((value, i) =>
    // A write that was under way is there in part.
    may[i].has(value) || (value === -1 && may[i].size > 1) ? [] : [`${i}: ${value}`],
  );
  assert.deepEqual(wrong, [], `granules of ${path} that show what was never there`);
}

async function expectBitmap(path: string, written: ReadonlySet<number>): Promise<void> {
  await using image = await openBitmaps(path);
  const info = image.bitmaps.list().find(({ name }) => name === 'b');
  if (info === undefined || info.inconsistent) return;
  const bits = await image.load('b');
  const missing = [...written].filter((granule) => !bits.get(granule * GRANULE));
  bits.free();
  assert.deepEqual(missing, [], `granules that the bitmap of ${path} lacks`);
}

test('a process that is killed while a job moves or copies its disk leaves images that show what was written', async () => {
  for (let kill = 0; kill < KILLS; kill++) {
    const job = JOBS[kill % JOBS.length];
    const layers = await makeDisk();
    await killAtSomeMoment(job);
    const { may, written, words } = noted(layers);
    assert.ok(!words.has('failed'), readFileSync('log', 'utf8'));
    try {
      const made = job.startsWith('mirror') ? 'copy.qcow2' : '0.qcow2';
      const disk = words.has('pivoted') ? made : '2.qcow2';
      await expectShows(disk, may);
      if (!words.has('pivot') || words.has('pivoted')) await expectBitmap(disk, written);
      for (const name of IMAGES) {
        const { corruptions } = await checkQcow2(join(process.cwd(), name));
        assert.equal(corruptions, 0, `${name} is corrupt`);
      }
    } catch (cause) {
      throw new Error(`kill ${kill}, ${job}, after: ${[...words].join(' ')}`, { cause });
    }
  }
});
