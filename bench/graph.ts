/** What a graph costs a guest: 4 KiB reads and writes through its export, with filters and with a backup job. */
import { randomFillSync } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { type DiskServer, ours, qemuNbd, type Shape, storageDaemon } from './graph/contenders.js';
import { type BenchOptions, type Contender, runWorkloads, type Workload } from './support/bench.js';
import { nbdLoad } from './support/nbd-load.js';

const MiB = 1024 * 1024;
const SMALL = { bytes: 4096, order: 'random' } as const;

const SHAPES: readonly (Shape & { readonly name: string })[] = [
  { name: 'no filter', filters: 0, job: 'none' },
  { name: '1 filter', filters: 1, job: 'none' },
  { name: '3 filters', filters: 3, job: 'none' },
  { name: 'a backup job', filters: 0, job: 'backup' },
];

export async function benchGraph(options: BenchOptions): Promise<void> {
  const depths = options.smoke ? [16] : [1, 16];
  const workloads = depths.flatMap((depth) =>
    (options.smoke ? (['write'] as const) : (['read', 'write'] as const)).flatMap((rw) =>
      SHAPES.map((shape) => workloadOf(shape, rw, depth)),
    ),
  );
  await runWorkloads(workloads, options);
}

function workloadOf(
  { name, ...shape }: Shape & { readonly name: string },
  rw: 'read' | 'write',
  depth: number,
): Workload {
  return {
    name: `4 KiB random ${rw}s, depth ${depth}, ${name}`,
    run: async ({ folder, smoke, race }) => {
      const disk = join(folder, 'disk.raw');
      await makeDisk(disk, smoke ? 8 * MiB : 512 * MiB);
      const load = { rw, depth, smoke };
      const contender = contenderOf(load);
      const contenders = [
        contender('a graph', () => ours(folder, disk, { kind: 'graph', ...shape })),
      ];
      if (shape.filters === 0 && shape.job === 'none') {
        const plain = { kind: 'plain', ...shape } as const;
        contenders.push(
          contender('our server without a graph', () => ours(folder, disk, plain)),
          contender('qemu-nbd', () => qemuNbd(folder, disk)),
        );
      }
      contenders.push(contender('qemu-storage-daemon', () => storageDaemon(folder, disk, shape)));
      await race(contenders);
    },
  };
}

interface Load {
  readonly rw: 'read' | 'write';
  readonly depth: number;
  readonly smoke: boolean;
}

/** Each run has a server of its own, so that a backup job has copied nothing yet. */
function contenderOf({ rw, depth, smoke }: Load) {
  return (name: string, start: () => Promise<DiskServer>): Contender => {
    let server: DiskServer | undefined;
    return {
      name,
      prepare: async () => {
        server = await start();
        // What our servers compile while they begin is not what is asked here.
        const warm = { rw: 'read', count: smoke ? 1 : 3000, depth: 16 } as const;
        await nbdLoad(server.uri, { ...warm, ...SMALL });
      },
      run: async () => {
        const before = server!.cpuMs();
        await nbdLoad(server!.uri, { rw, depth, count: countFor({ depth, smoke }), ...SMALL });
        return server!.cpuMs() - before;
      },
      clear: async () => {
        await server?.stop();
        server = undefined;
      },
    };
  };
}

function countFor({ depth, smoke }: Pick<Load, 'depth' | 'smoke'>): number {
  if (smoke) return 200;
  return depth === 1 ? 10_000 : 50_000;
}

/** A disk full of data, and as much room for a backup of it. */
async function makeDisk(path: string, size: number): Promise<void> {
  const file = await open(path, 'w');
  const bytes = randomFillSync(Buffer.alloc(8 * MiB));
  for (let at = 0; at < size; at += bytes.length) await file.write(bytes, 0, bytes.length, at);
  await file.close();
  const target = await open(`${path}.target`, 'w');
  await target.truncate(size);
  await target.close();
}
