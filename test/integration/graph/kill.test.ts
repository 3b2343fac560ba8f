/**
 * A process that writes a disk in a graph is killed, between any two of its steps: around a snapshot, a populate, a stored bitmap. Every
 * layer can be opened and has no corruption, no write is lost that was durable, and a bitmap lacks nothing or says that it may.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { checkQcow2, createQcow2, openBitmaps, openDevice } from 'lacuna';
import { Random } from 'lacuna/testing';
import { expect, test } from 'vitest';
import { firstSeed, runsOr } from '../../support/long-run.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const GRANULE = 65_536;
const GRANULES = 16;
const VICTIM = fileURLToPath(new URL('../../support/graph-victim.mjs', import.meta.url));
/** Lines that it says before it begins to repeat itself, about. */
const MOST_LINES = 45;

/** Runs it until it has said so many lines. */
async function killedAfter(lines: number, seed: number): Promise<string[][]> {
  const child = spawn(process.execPath, [VICTIM, String(seed)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  const said: string[][] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    said.push(line.split(' '));
    if (said.length === lines) child.kill('SIGKILL');
  }
  await exited;
  return said;
}

async function granulesOf(path: string): Promise<number[]> {
  await using device = await openDevice(path);
  const bytes = new Uint8Array(device.size);
  await device.read(0, bytes);
  return Array.from({ length: GRANULES }, (_, i) => bytes[i * GRANULE]);
}

/** Granules that a bitmap says are dirty; undefined where it is inconsistent, or not there. */
async function dirtyIn(path: string, name: string): Promise<Set<number> | undefined> {
  await using opened = await openBitmaps(path);
  const info = opened.bitmaps.list().find((each) => each.name === name);
  if (info === undefined || info.inconsistent) return undefined;
  const bitmap = await opened.bitmaps.load(name);
  return new Set(
    Array.from({ length: GRANULES }, (_, i) => i).filter((granule) =>
      bitmap.get(granule * GRANULE),
    ),
  );
}

test('after a kill all layers are sound, nothing durable is lost, and no bitmap is too small without saying so', async () => {
  const first = firstSeed();
  for (let seed = first; seed < first + runsOr(4, 200); seed++) {
    for (const name of ['disk', 'top1', 'top2', 'top3']) rmSync(`${name}.qcow2`, { force: true });
    await createQcow2('disk.qcow2', { size: GRANULES * GRANULE });
    {
      await using made = await openBitmaps('disk.qcow2', { writable: true });
      made.bitmaps.add({ name: 'records', persistent: true });
      made.bitmaps.add({ name: 'rests', persistent: true, disabled: true });
      await made.store();
    }
    const said = await killedAfter(1 + new Random(seed).below(MOST_LINES), seed);
    const told = `seed ${seed}, killed after: ${said.map((words) => words.join(' ')).join(', ')}`;
    const wordsOf = (what: string) => said.filter(([word]) => word === what);
    const made = ['disk', ...wordsOf('created').map(([, name]) => name)];
    const top = made.at(-1)!;
    for (const name of made) {
      const { corruptions } = await checkQcow2(`${name}.qcow2`);
      expect(corruptions, `${name}: ${told}`).toBe(0);
    }
    const shown = await granulesOf(`${top}.qcow2`);
    for (let granule = 0; granule < GRANULES; granule++) {
      const begun = said.filter(([word, at]) => word === 'begin' && Number(at) === granule);
      const durable = said.findLastIndex(([word, at]) => word === 'end' && Number(at) === granule);
      const later = begun.filter((words) => said.indexOf(words) > durable);
      const allowed = [
        durable < 0 ? 0 : Number(said[durable][2]),
        ...later.map((words) => Number(words[2])),
      ];
      expect(allowed, `granule ${granule}: ${told}`).toContain(shown[granule]);
    }
    // What the lowest layer records is written while it is the top, which may be until the last snapshot has begun.
    const below = wordsOf('begin').filter(([, , , layer]) => layer === 'disk');
    const written = new Set(below.map(([, granule]) => Number(granule)));
    const records = await dirtyIn('disk.qcow2', 'records');
    const missing = records && [...written].filter((granule) => !records.has(granule));
    expect(missing ?? [], `records: ${told}`).toEqual([]);
    const rests = await dirtyIn('disk.qcow2', 'rests');
    const stored = said.findLastIndex(([word]) => word === 'stored');
    const must = said
      .slice(0, Math.max(0, stored))
      .filter(([word, , , layer]) => word === 'begin' && layer === 'disk');
    const lacking = rests && must.filter(([, granule]) => !rests.has(Number(granule)));
    expect(lacking ?? [], `rests: ${told}`).toEqual([]);
    // A populate that was not stored is not forgotten in silence.
    const populated = said.findLastIndex(([word]) => word === 'populated');
    if (populated > stored) expect(rests, told).toBeUndefined();
  }
});
