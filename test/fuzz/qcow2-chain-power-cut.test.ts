/** A chain of images is cut off while it is worked on: the disk that it shows is there all the same. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { copy, createQcow2, openDevice, type Qcow2Options } from 'lacuna';
import { describe, expect, it } from 'vitest';
import { Qcow2Driver } from '#dist/block/drivers/qcow2/open/qcow2.js';
import { setBackingFile } from '#dist/block/drivers/qcow2/open/set-backing.js';
import { Device } from '#dist/block/index.js';
import { writeDifferences } from '#dist/chain/rebase.js';
import { parseHeader } from '#dist/qcow2/index.js';
import { runsOr } from '../support/long-run.js';
import { PowerCutDisk } from '../support/power-cut-disk.js';
import { checkImage } from '../support/qcow2-checker.js';
import { scribble } from '../support/scribble.js';
import { temporaryFolder } from '../support/temporary-folder.js';
import { Random } from '../unit/bitmap/random.js';

const SEED = Random.seed();
const SESSIONS = runsOr(1);
/** About so many cuts of each session are looked at. */
const CUTS = 12;
const SIZE = 2 ** 20 + 512;
const folder = temporaryFolder();
const path = join(folder, 'disk.qcow2');

const KINDS: Omit<Qcow2Options, 'size'>[] = [
  { clusterSize: 65_536 },
  { clusterSize: 1024 },
  { clusterSize: 16_384, extendedL2: true },
];

/** A raw disk of random stretches, some of them zero. */
function newRaw(name: string, size: number, random: Random): string {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; ) {
    const end = Math.min(size, at + random.between(1, 200) * 512);
    bytes.fill(random.pick([0, random.between(1, 255)]), at, end);
    at = end;
  }
  writeFileSync(join(folder, name), bytes);
  return join(folder, name);
}

/** An image over a raw disk, with something in it. */
async function newImage(below: string, options: Omit<Qcow2Options, 'size'>, random: Random) {
  await createQcow2(path, { ...options, size: SIZE, backing: { filename: below, format: 'raw' } });
  scribble(path, SIZE, random, 200);
  return new PowerCutDisk(readFileSync(path));
}

async function openOver(disk: PowerCutDisk, backing: string | null, unrecorded: boolean) {
  const own = { driver: 'file', filename: path } as const;
  const below = backing === null ? null : ({ driver: 'file', filename: backing } as const);
  const driver = await Qcow2Driver.open(
    { driver: 'qcow2', file: own, backing: below },
    {
      above: [],
      unrecorded,
      open: async (description) =>
        description.driver === 'file' && description.filename === path
          ? new Device(disk.driver())
          : openDevice(description),
    },
  );
  return new Device(driver);
}

/** Visits what may be left at some of the cuts, and at the last ones. */
function cutSome(disk: PowerCutDisk, random: Random, visit: (cut: number, bytes: Buffer) => void) {
  const step = Math.ceil(disk.entries / CUTS);
  disk.forEachCut((cut, content) => {
    if (cut + 12 < disk.entries && random.between(1, step) > 1) return;
    const half = () => random.between(0, 1) === 0;
    for (const keep of [() => true, half, (isNewest: boolean) => isNewest]) {
      visit(cut, content(keep));
    }
  });
}

describe.each(KINDS)('a power cut at any moment, %j', (options) => {
  it.each([['another backing file'], ['a shorter one'], ['none']])(
    'of a rebase to %s leaves the disk as it was',
    async (what) => {
      for (let seed = SEED; seed < SEED + SESSIONS; seed++) {
        const random = new Random(seed);
        const old = newRaw('old.raw', SIZE, random);
        const disk = await newImage(old, options, random);
        const length = what === 'a shorter one' ? 600 * 512 : SIZE;
        const fresh = what === 'none' ? null : newRaw('fresh.raw', length, random);
        const shown = Buffer.from(checkImage(disk.content).read(readFileSync(old)));

        const image = await openOver(disk, old, true);
        const below = fresh === null ? undefined : await openDevice(fresh);
        let told = 0;
        const tell = (doneBytes: number) => {
          expect(doneBytes).toBeGreaterThanOrEqual(told);
          told = doneBytes;
        };
        const job = { next: async () => {}, signal: new AbortController().signal };
        await writeDifferences(image, below, job, tell);
        expect(told).toBe(SIZE);
        await image.flush();
        await image.close();
        await below?.close();
        const backing = fresh === null ? null : { filename: fresh, format: 'raw' };
        await setBackingFile(new Device(disk.driver()), backing);

        let last: string | undefined;
        cutSome(disk, random, (cut, bytes) => {
          const where = `seed ${seed}, cut ${cut}`;
          const { backingFile } = parseHeader(bytes, path);
          const checked = checkImage(bytes);
          assert.deepEqual(checked.corruptions, [], where);
          const under = backingFile === undefined ? undefined : readFileSync(backingFile);
          assert.ok(Buffer.compare(checked.read(under), shown) === 0, where);
          last = backingFile;
        });
        expect(parseHeader(disk.content, path).backingFile).toBe(fresh ?? undefined);
        expect([old, fresh ?? undefined]).toContain(last);
      }
    },
  );

  it('of a commit leaves what the top shows, and a base that is whole', async () => {
    for (let seed = SEED; seed < SEED + SESSIONS; seed++) {
      const random = new Random(seed);
      const raw = newRaw('old.raw', SIZE, random);
      const base = await newImage(raw, options, random);
      const top = join(folder, 'top.qcow2');
      const named = { filename: path, format: 'qcow2' };
      await createQcow2(top, { ...options, size: SIZE, backing: named });
      scribble(top, SIZE, random, 200);
      const over = checkImage(readFileSync(top));
      const under = readFileSync(raw);
      const shown = Buffer.from(over.read(checkImage(base.content).read(under)));

      await using source = await openDevice(top);
      {
        await using target = await openOver(base, raw, false);
        await copy({ source, target, mode: 'top', threads: 0 });
      }
      cutSome(base, random, (cut, bytes) => {
        const where = `seed ${seed}, cut ${cut}`;
        const checked = checkImage(bytes);
        assert.deepEqual(checked.corruptions, [], where);
        assert.ok(Buffer.compare(over.read(checked.read(under)), shown) === 0, where);
      });
      expect(Buffer.compare(checkImage(base.content).read(under), shown)).toBe(0);
    }
  });
});
