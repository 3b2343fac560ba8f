/** The power is cut at every step of a backup and of a prune, with and without the names that were not synced. */
import { cpSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Repository } from 'lacuna/repository';
import { beforeAll, describe, expect, test } from 'vitest';
import { stepsOr } from '../../support/long-run.js';
import {
  change,
  hashOf,
  hashOfFile,
  KiB,
  MiB,
  makeImage,
  pointsOf,
} from '../../support/repository.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { POWER_CUT, VolatileNames } from '../../support/volatile-names.js';

const folder = temporaryFolder();
const disk = join(folder, 'vda.qcow2');
const raw = join(folder, 'vdb.raw');
const original = join(folder, 'original');
const copy = join(folder, 'copy');
const machine = 'm';
const disks = [
  { name: 'vda', source: disk },
  { name: 'vdb', source: raw },
];
/** By number, what a point holds of vda; the last is what the disk is now. */
const hashes = new Map<number, string>();

async function write(number: number): Promise<void> {
  for (const path of [disk, raw]) {
    await change(path, (device) =>
      device.write(number * 128 * KiB, Buffer.alloc(70 * KiB, number)),
    );
  }
  hashes.set(number, hashOf(disk, folder));
}

beforeAll(async () => {
  makeImage(disk, 2 * MiB);
  makeImage(join(folder, 'empty.qcow2'), 2 * MiB);
  hashOf(join(folder, 'empty.qcow2'), folder);
  cpSync(join(folder, 'hashed.raw'), raw);
  const repository = Repository.open(original, { create: true });
  await change(disk, (device) => device.write(MiB, Buffer.alloc(MiB, 9)));
  for (let number = 1; number <= 2; number++) {
    await write(number);
    await repository.backup({ machine, disks, bitmaps: false });
  }
  await write(3);
});

/** Files of disks that no manifest names. */
function unnamedFiles(repository: Repository): string[] {
  const named = pointsOf(repository, machine).flatMap(({ disks }) =>
    disks.flatMap(({ file }) =>
      [file, ...(file.below ?? [])].flatMap(({ name, leaves }) => [name, leaves.name]),
    ),
  );
  return ['vda', 'vdb']
    .flatMap((name) => readdirSync(join(copy, 'machines', machine, 'disks', name)))
    .filter((name) => !named.includes(name));
}

/** Does something with a copy of the repository until the power is cut; tells whether it was. */
async function cutAfter(
  steps: number,
  losesNames: boolean,
  work: (repository: Repository) => PromiseLike<unknown>,
): Promise<boolean> {
  rmSync(copy, { recursive: true, force: true });
  cpSync(original, copy, { recursive: true });
  const names = new VolatileNames(steps, losesNames);
  // So that prune leaves the image of vda's first point, and merges that of vdb.
  const options = { operations: names.operations, smallImage: 0 };
  const repository = Repository.openWith(copy, options);
  try {
    await work(repository);
  } catch (error) {
    expect([error, (error as Error).cause]).toContain(POWER_CUT);
  }
  return names.isCut;
}

/** Every listed point is whole, and the next runs leave nothing over. */
async function check(least: readonly number[], at: string): Promise<void> {
  const repository = Repository.open(copy);
  const numbers = pointsOf(repository, machine).map(({ number }) => number);
  expect({ at, numbers }).toEqual({ at, numbers: expect.arrayContaining([...least]) });
  expect({ at, problems: (await repository.verify()).problems }).toEqual({ at, problems: [] });
  await repository.prune({ keep: { last: 10 } });
  expect(pointsOf(repository, machine).map(({ number }) => number)).toEqual(numbers);
  expect({ at, problems: (await repository.verify()).problems }).toEqual({ at, problems: [] });
  const target = join(folder, 'out.raw');
  for (const number of numbers) {
    await repository.restore({ point: number, disks: [{ name: 'vda', target }] });
    const hash = hashOfFile(target);
    expect({ at, number, hash }).toEqual({ at, number, hash: hashes.get(number) });
  }
  expect({ at, unnamed: unnamedFiles(repository) }).toEqual({ at, unnamed: [] });
  const names = readdirSync(copy, { recursive: true, encoding: 'utf8' });
  expect(names.filter((name) => /\.partial-|\.new$/.test(name))).toEqual([]);
}

/** A long run tries both; names that are lost show more. */
const VARIANTS = [
  { losesNames: true, names: 'lost' },
  { losesNames: false, names: 'kept' },
].slice(0, stepsOr(1));

describe.each(VARIANTS)('with the names that were not synced $names', ({ losesNames }) => {
  test('a backup that is cut at any step is a point, or none', async () => {
    let steps = 0;
    const backup = (repository: Repository) =>
      repository.backup({ machine, disks, bitmaps: false });
    while (await cutAfter(steps, losesNames, backup)) {
      await check([1, 2], `step ${steps}`);
      steps++;
    }
    expect(steps).toBeGreaterThan(15);
    await check([1, 2, 3], 'the end');
  });

  test('a prune that is cut at any step loses no point that stays', async () => {
    let steps = 0;
    const prune = (repository: Repository) => repository.prune({ keep: { last: 1 } });
    while (await cutAfter(steps, losesNames, prune)) {
      await check([2], `step ${steps}`);
      steps++;
    }
    expect(steps).toBeGreaterThan(15);
    await check([2], 'the end');
  });
});
