/** The jobs that the bench races, and the images that they work on. */
import { randomFillSync } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { createQcow2, createRawFile, openBitmaps, openDevice } from 'lacuna';
import { Random } from 'lacuna/testing';

const MiB = 1024 * 1024;
const GiB = 1024 * MiB;
const CLUSTER = 65_536;

/** A job that both programs know, in the words of QMP. */
export interface Scenario {
  readonly name: string;
  /** Makes the images, once. */
  make(folder: string, smoke: boolean): Promise<void>;
  /** Files that each run has its own copy of. */
  readonly files: readonly string[];
  /** `--blockdev` of both programs; FOLDER stands for the folder of the run. */
  readonly nodes: readonly object[];
  readonly command: readonly [name: string, args: object];
  /** The job waits to be completed when it is ready. */
  readonly isCompleted: boolean;
  /** The result, and what it must be equal to. */
  readonly equal: readonly [result: string, master: string];
}

const file = (filename: string) => ({ driver: 'file', filename: `FOLDER/${filename}` });
const image = (name: string) => ({
  driver: 'qcow2',
  'node-name': name,
  file: file(`${name}.qcow2`),
});
const raw = (name: string) => ({ driver: 'raw', 'node-name': name, file: file(`${name}.raw`) });
const chained = { ...image('top'), backing: { ...image('base') } };

const copying = (name: 'backup' | 'mirror', device: string, more: object) =>
  [`blockdev-${name}`, { 'job-id': 'job', device, target: 'target', ...more }] as const;

async function makeDense(folder: string, smoke: boolean): Promise<void> {
  const size = smoke ? 4 * MiB : 512 * MiB;
  const disk = await open(join(folder, 'disk.raw'), 'w');
  const bytes = randomFillSync(Buffer.alloc(4 * MiB));
  for (let at = 0; at < size; at += bytes.length) await disk.write(bytes, 0, bytes.length, at);
  await disk.close();
  await createRawFile(join(folder, 'target.raw'), size);
}

/** 1 TiB with 4,000 extents, which are dirty in a bitmap. */
async function makeSparse(folder: string, smoke: boolean): Promise<void> {
  const size = smoke ? GiB : 1024 * GiB;
  const path = join(folder, 'disk.qcow2');
  await createQcow2(path, { size });
  {
    await using made = await openBitmaps(path, { writable: true });
    made.bitmaps.add({ name: 'b', granularity: CLUSTER, persistent: true });
    await made.store();
  }
  await scatter(path, size, smoke ? 20 : 4000);
  await createQcow2(join(folder, 'target.qcow2'), { size });
}

async function scatter(path: string, size: number, count: number): Promise<void> {
  const random = new Random(1);
  const bytes = randomFillSync(Buffer.alloc(CLUSTER));
  await using device = await openDevice(path, { writable: true });
  for (let i = 0; i < count; i++) {
    await device.write(random.below(size / CLUSTER) * CLUSTER, bytes);
  }
  await device.flush();
}

/** A base and an image over it, each with data in a quarter of its clusters. */
async function makeChain(folder: string, smoke: boolean): Promise<void> {
  const size = smoke ? 16 * MiB : 512 * MiB;
  const [base, top] = ['base', 'top'].map((name) => join(folder, `${name}.qcow2`));
  await createQcow2(base, { size });
  await createQcow2(top, { size, backing: { filename: 'base.qcow2', format: 'qcow2' } });
  for (const path of [base, top]) await scatter(path, size, size / CLUSTER / 4);
  await createQcow2(join(folder, 'target.qcow2'), {
    size,
    backing: { filename: 'base.qcow2', format: 'qcow2' },
  });
}

const DENSE = {
  make: makeDense,
  files: ['disk.raw', 'target.raw'],
  nodes: [raw('disk'), raw('target')],
};
const SPARSE = {
  make: makeSparse,
  files: ['disk.qcow2', 'target.qcow2'],
  nodes: [image('disk'), image('target')],
};
const CHAIN = {
  make: makeChain,
  files: ['base.qcow2', 'top.qcow2', 'target.qcow2'],
  nodes: [chained],
};
const OVERLAY = {
  ...CHAIN,
  nodes: [chained, { ...image('target'), backing: null }],
};

const rawEqual = ['target.raw', 'disk.raw'] as const;
const imageEqual = ['target.qcow2', 'disk.qcow2'] as const;

export const SCENARIOS: readonly Scenario[] = [
  ...(['backup', 'mirror'] as const).flatMap((job) => [
    {
      ...DENSE,
      name: `${job}, full, 512 MiB of data`,
      command: copying(job, 'disk', { sync: 'full' }),
      isCompleted: job === 'mirror',
      equal: rawEqual,
    },
    {
      ...SPARSE,
      name: `${job}, full, 1 TiB with 4,000 extents`,
      command: copying(job, 'disk', { sync: 'full' }),
      isCompleted: job === 'mirror',
      equal: imageEqual,
    },
    {
      ...OVERLAY,
      name: `${job}, top, a quarter of 512 MiB`,
      command: copying(job, 'top', { sync: 'top' }),
      isCompleted: job === 'mirror',
      equal: ['target.qcow2', 'top.qcow2'] as const,
    },
  ]),
  {
    ...SPARSE,
    name: 'backup, incremental, 4,000 granules of 1 TiB',
    command: copying('backup', 'disk', { sync: 'incremental', bitmap: 'b' }),
    isCompleted: false,
    equal: imageEqual,
  },
  {
    ...CHAIN,
    name: 'stream, a quarter of 512 MiB',
    command: ['block-stream', { 'job-id': 'job', device: 'top' }],
    isCompleted: false,
    equal: ['top.qcow2', 'top.qcow2'],
  },
  {
    ...CHAIN,
    name: 'commit, a quarter of 512 MiB',
    command: ['block-commit', { 'job-id': 'job', device: 'top' }],
    isCompleted: true,
    equal: ['base.qcow2', 'top.qcow2'],
  },
];
