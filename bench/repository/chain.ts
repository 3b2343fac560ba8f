/** A machine that was backed up every day: its newest point is restored, and its older points go. */
import { execFileSync } from 'node:child_process';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Manifest, Repository } from 'lacuna/repository';
import { openDevice } from '#dist/block/index.js';
import { GiB, KiB, MiB, randomNumbers, scatter, TiB } from '../copy/disks.js';
import { measured, ours } from '../copy/tools.js';
import { type Contender, exec, type Workload, type WorkloadContext } from '../support/bench.js';
import { bytesOnDisk } from './space.js';

const INCREMENTS = 30;
/** What lies together on the disk. */
const RUN = MiB;
/** Of each increment, of the data. */
const CHANGED = 0.01;
const BLOCK = 64 * KiB;
const MACHINE = 'm';

interface Chain {
  /** Of the repository. */
  readonly path: string;
  readonly points: readonly Manifest[];
  /** What the newest point must show. */
  readonly disk: string;
}

/** Makes the disk, and its points. */
async function makeChain(folder: string, smoke: boolean): Promise<Chain> {
  const size = smoke ? 16 * GiB : TiB;
  const runs = scatter(size, smoke ? 16 : 4096, RUN);
  const disk = join(folder, 'disk.qcow2');
  const path = join(folder, 'repository');
  await exec('qemu-img', ['create', '-q', '-f', 'qcow2', disk, `${size}`]);
  const next = randomNumbers(7);
  const bytes = Buffer.alloc(RUN);
  const fill = (length: number) => {
    for (let at = 0; at < length; at += 4) bytes.writeUInt32LE(next(), at);
    return bytes.subarray(0, length);
  };
  const repository = Repository.open(path, { create: true });
  const backUp = async (tag: string) => {
    await repository.backup({
      machine: MACHINE,
      disks: [{ name: 'vda', source: disk }],
      tags: [tag],
    });
  };
  await change(disk, async (write) => {
    for (const offset of runs) await write(offset, fill(RUN));
  });
  await backUp('full');
  const changes = Math.ceil((runs.length * RUN * CHANGED) / BLOCK);
  for (let i = 0; i < (smoke ? 3 : INCREMENTS); i++) {
    await change(disk, async (write) => {
      for (let n = 0; n < changes; n++) {
        const run = runs[next() % runs.length];
        await write(run + (next() % (RUN / BLOCK)) * BLOCK, fill(BLOCK));
      }
    });
    await backUp('day');
  }
  const [{ points }] = repository.points(MACHINE);
  return { path, points, disk };
}

async function change(
  path: string,
  work: (write: (offset: number, bytes: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  await using device = await openDevice(path, { writable: true });
  await work((offset, bytes) => device.write(offset, bytes));
}

function imageOf({ disks }: Manifest): string {
  return disks[0].file.name;
}

const folderOf = (repository: string) => join(repository, 'machines', MACHINE, 'disks', 'vda');

async function compare(disk: string, image: string, format: string): Promise<void> {
  await exec('qemu-img', ['compare', '-f', 'qcow2', '-F', format, disk, image]);
}

const TITLE = `1 TiB with 4 GiB of data, 1 full and ${INCREMENTS} increments of 1 %`;

async function raceRestore(chain: Chain, { folder, race }: WorkloadContext): Promise<void> {
  const image = join(folderOf(chain.path), imageOf(chain.points.at(-1)!));
  const target = join(folder, 'restored.raw');
  const contender = (name: string, command: readonly [string, ...string[]]): Contender => ({
    name,
    run: () => measured(command),
    verify: () => compare(chain.disk, target, 'raw'),
    clear: () => rm(target, { force: true }),
  });
  const convert = ['qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw'] as const;
  await race(
    [
      contender('lacuna restore', ours('restore', chain.path, 'latest', target)),
      contender('qemu-img convert', [...convert, image, target]),
      contender('qemu-img convert -W -m 16', [...convert, '-W', '-m', '16', image, target]),
      contender('qemu-img convert -t writeback (flushed)', [
        ...[...convert, '-t', 'writeback', image, target],
      ] as [string, ...string[]]),
    ],
    `restore: ${TITLE}`,
  );
}

/** A copy of the repository for each run; files that are changed in place are copied, all others are links. */
async function copyOf({ path }: Chain, changed: string | undefined): Promise<string> {
  const copy = `${path}-copy`;
  await rm(copy, { recursive: true, force: true });
  execFileSync('cp', ['-rl', path, copy]);
  if (changed === undefined) return copy;
  const file = join(folderOf(copy), changed);
  await rm(file);
  await cp(join(folderOf(path), changed), file);
  return copy;
}

interface Pruning {
  readonly title: string;
  readonly keep: readonly string[];
  readonly isFullKept: boolean;
}

const PRUNINGS: readonly Pruning[] = [
  {
    title: 'the increments become one',
    keep: ['--keep-tag', 'full', '--keep-last', '1'],
    isFullKept: true,
  },
  { title: 'the increments go into the full', keep: ['--keep-last', '1'], isFullKept: false },
];

/** Merges the points behind one of them into what stays. */
async function racePrune(
  chain: Chain,
  { title, keep, isFullKept }: Pruning,
  { race }: WorkloadContext,
): Promise<void> {
  const copy = `${chain.path}-copy`;
  const images = chain.points.map(imageOf);
  const top = images.at(-1)!;
  // What the first of those that go holds, or the full one, takes in all above it.
  const base = images[isFullKept ? 1 : 0];
  const clear = () => rm(copy, { recursive: true, force: true });
  const storedBytes = () => bytesOnDisk(copy);
  const ourPrune: Contender = {
    name: 'lacuna prune',
    prepare: async () => void (await copyOf(chain, undefined)),
    run: () => measured(ours('prune', ...keep, copy)),
    verify: () => compare(chain.disk, join(folderOf(copy), top), 'qcow2'),
    storedBytes,
    clear,
  };
  const commit: Contender = {
    name: 'qemu-img commit',
    prepare: async () => void (await copyOf(chain, base)),
    run: () => measured(['qemu-img', 'commit', '-d', '-b', base, top], folderOf(copy)),
    verify: async () => {
      await compare(chain.disk, join(folderOf(copy), base), 'qcow2');
      for (const image of images.slice(images.indexOf(base) + 1)) {
        await rm(join(folderOf(copy), image));
      }
    },
    storedBytes,
    clear,
  };
  await race([ourPrune, commit], `prune, ${title}: ${TITLE}`);
}

/** One chain for all, since it takes longer to make than they do. */
export const chainOfDays: Workload = {
  name: `restore and prune: ${TITLE}`,
  run: async (context) => {
    const chain = await makeChain(context.folder, context.smoke);
    for (const pruning of PRUNINGS) await racePrune(chain, pruning, context);
    await raceRestore(chain, context);
  },
};
