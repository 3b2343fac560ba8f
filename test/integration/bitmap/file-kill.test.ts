import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { BitmapFile, DirtyBitmaps } from 'lacuna/bitmap';
import { Random } from 'lacuna/testing';
import { test } from 'vitest';
import { firstSeed, runsOr } from '../../support/long-run.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const GRANULARITY = 4096;
const SIZE = 5000 * GRANULARITY + 1;
const NAMES = ['a', 'b', 'c'];
const KILLS = runsOr(15);

const random = new Random(firstSeed());
const folder = temporaryFolder();
const path = join(folder, 'disk.bitmaps');
const log = join(folder, 'log');

/** A file with one bitmap that records and two that do not; and nothing noted yet. */
function beginAnew(): void {
  rmSync(log, { force: true });
  rmSync(path, { force: true });
  const bitmaps = new DirtyBitmaps({ size: SIZE, granularity: GRANULARITY });
  for (const name of NAMES) bitmaps.add({ name, persistent: true, disabled: name !== 'a' });
  BitmapFile.open(path, { size: SIZE }).close(bitmaps);
  bitmaps.free();
}

/** Lets a process record for a while, and ends it without a warning. */
async function recordAndKill(): Promise<void> {
  const script = new URL('./recorder.mjs', import.meta.url).pathname;
  const args = [script, path, log, String(SIZE), String(random.below(2 ** 31))];
  const child = spawn(process.execPath, args, { stdio: 'inherit' });
  const ended = once(child, 'exit');
  while (!existsSync(log) && child.exitCode === null) await sleep(10);
  await sleep(random.below(150));
  child.kill('SIGKILL');
  const [code, signal] = await ended;
  assert.equal(signal, 'SIGKILL', `it ended by itself with ${code}`);
}

/** For each name the granules that were written while it recorded. */
function noted(): Map<string, Set<number>> {
  const granules = new Map(NAMES.map((name) => [name, new Set<number>()]));
  const recording = new Set(['a']);
  for (const line of readFileSync(log, 'utf8').split('\n')) {
    const [word, what] = line.split(' ');
    if (word === 'enable') recording.add(what);
    if (word === 'disable') recording.delete(what);
    if (word !== 'record') continue;
    for (const name of recording) granules.get(name)!.add(Math.floor(Number(what) / GRANULARITY));
  }
  return granules;
}

test('a process that is killed leaves bitmaps that are exact, or known to lack writes', async () => {
  let checked = 0;
  beginAnew();
  for (let kill = 0; kill < KILLS; kill++) {
    await recordAndKill();
    const truth = noted();
    const file = BitmapFile.open(path, { size: SIZE });
    for (const { name, inconsistent } of file.bitmaps) {
      if (inconsistent) continue;
      const bits = file.load(name);
      const missing = [...truth.get(name)!].filter((granule) => !bits.get(granule * GRANULARITY));
      assert.deepEqual(missing, [], `granules that ${name} lacks`);
      bits.free();
      checked++;
    }
    const usable = file.bitmaps.every(({ inconsistent }) => !inconsistent);
    file.close();
    if (!usable) beginAnew();
  }
  assert.ok(checked > 0, 'some were consistent');
});
