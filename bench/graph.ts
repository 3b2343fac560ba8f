/** What a graph costs a guest: 4 KiB reads and writes through its export, with filters and with a backup job. */
import { randomFillSync } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { NbdClient, parseNbdUri } from 'lacuna/nbd';
import { Random } from 'lacuna/testing';
import { type DiskServer, ours, qemuNbd, type Shape, storageDaemon } from './graph/contenders.js';
import { type BenchOptions, type Contender, runWorkloads, type Workload } from './support/bench.js';

const MiB = 1024 * 1024;
const BLOCK = 4096;

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
        await load(server.uri, { rw: 'read', count: smoke ? 1 : 3000, depth: 16 });
      },
      run: async () => {
        const before = server!.cpuMs();
        await load(server!.uri, { rw, depth, count: countFor({ depth, smoke }) });
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

/** Requests to places that are the same in every run, so many at a time, over one connection. */
async function load(
  uri: string,
  { rw, depth, count }: Pick<Load, 'rw' | 'depth'> & { readonly count: number },
): Promise<void> {
  const { server, export: name } = parseNbdUri(uri);
  const client = await NbdClient.connect({ server, export: name });
  const random = new Random(1);
  let left = count;
  const lane = async () => {
    const bytes = randomFillSync(Buffer.alloc(BLOCK));
    while (left-- > 0) {
      const offset = random.below(client.size / BLOCK) * BLOCK;
      if (rw === 'read') await client.read(offset, bytes);
      else await client.write(offset, bytes);
    }
  };
  await Promise.all(Array.from({ length: depth }, lane));
  await client.close();
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
