/** A machine with many disks, and ever more restore points: what a list takes, and what an increment takes to start. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Manifest, Repository } from 'lacuna/repository';
import { type BlockDevice, openDevice } from '#dist/block/index.js';
import { GiB, KiB } from '../copy/disks.js';
import { measured, ours } from '../copy/tools.js';
import { type Contender, exec, type Workload } from '../support/bench.js';

const MACHINE = 'm';
const BLOCK = 64 * KiB;
/** Blocks of a disk that have data. */
const BLOCKS = 256;
/** A full backup comes so often, so that each of the chains that are measured can grow by what the measuring adds. */
const EVERY = 90;

interface Machine {
  readonly repository: Repository;
  readonly path: string;
  readonly disks: readonly { name: string; source: string }[];
}

async function makeMachine(folder: string, disks: number): Promise<Machine> {
  const path = join(folder, 'repository');
  const images = join(folder, 'images');
  await mkdir(images);
  const names = Array.from({ length: disks }, (_, i) => `vd${String.fromCharCode(97 + i)}`);
  for (const name of names) {
    await exec('qemu-img', [
      'create',
      '-q',
      '-f',
      'qcow2',
      join(images, `${name}.qcow2`),
      `${GiB}`,
    ]);
  }
  return {
    repository: Repository.open(path, { create: true }),
    path,
    disks: names.map((name) => ({ name, source: join(images, `${name}.qcow2`) })),
  };
}

/** Adds points until there are so many; each has one block more of each disk. */
async function growTo({ repository, disks }: Machine, points: number): Promise<void> {
  for (let point = pointsOf(repository).length; point < points; point++) {
    for (const { source } of disks) {
      await using device: BlockDevice = await openDevice(source, { writable: true });
      const offset = (point % BLOCKS) * 16 * BLOCK;
      await device.write(offset, Buffer.alloc(BLOCK, 1 + (point % 255)));
    }
    const full = point % EVERY === 10;
    await repository.backup({ machine: MACHINE, disks, full, threads: 0 });
  }
}

function pointsOf(repository: Repository): readonly Manifest[] {
  return repository.machines().length === 0 ? [] : repository.points(MACHINE)[0].points;
}

/** Images in the chain of the newest point. */
function chainOf(repository: Repository): number {
  const points = pointsOf(repository);
  const parents = new Map(points.map(({ number, disks }) => [number, disks[0].file.parent]));
  let length = 0;
  for (let at = points.at(-1)?.number ?? null; at !== null; at = parents.get(at)!) length++;
  return length;
}

function contenders(machine: Machine): Contender[] {
  const { path, repository, disks } = machine;
  const sources = disks.map(({ source }) => source);
  const backup = (...flags: string[]) =>
    ours('backup', '--machine', MACHINE, ...flags, ...sources, path);
  const title = `${pointsOf(repository).length} points, chains of ${chainOf(repository)}`;
  return [
    { name: `lacuna list, ${title}`, run: () => measured(ours('list', path)) },
    { name: `lacuna backup --plan, ${title}`, run: () => measured(backup('--plan')) },
    {
      name: `lacuna backup of no changes, ${title}`,
      run: () => measured(backup()),
      verify: () => compareNewest(machine),
    },
  ];
}

/** The point that was just made, read by QEMU alone. */
async function compareNewest({ path, repository, disks }: Machine): Promise<void> {
  const newest = pointsOf(repository).at(-1)!;
  for (const [i, { name, source }] of disks.entries()) {
    const image = join(path, 'machines', MACHINE, 'disks', name, newest.disks[i].file.name);
    await exec('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', source, image]);
  }
}

export const manyPoints: Workload = {
  name: 'many points of 20 disks',
  run: async ({ smoke, folder, race }) => {
    const machine = await makeMachine(folder, smoke ? 2 : 20);
    for (const points of smoke ? [2, 4] : [10, 100, 1000]) {
      await growTo(machine, points);
      await race(contenders(machine));
    }
  },
};
