/** Our daemon beside qemu-storage-daemon: its start, its memory, and requests through raw and qcow2 nodes. */
import { randomFillSync } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { type Format, type RunningDaemon, startDaemon } from './daemon/contenders.js';
import {
  type BenchOptions,
  type Contender,
  exec,
  runWorkloads,
  type Workload,
} from './support/bench.js';
import { type NbdLoad, nbdLoad } from './support/nbd-load.js';

const MiB = 1024 * 1024;
const KINDS = ['lacuna daemon', 'qemu-storage-daemon'] as const;

export async function benchDaemon(options: BenchOptions): Promise<void> {
  const formats: readonly Format[] = options.smoke ? ['qcow2'] : ['raw', 'qcow2'];
  const loads = loadsFor(options);
  const workloads = formats.flatMap((format) => [
    startOf(format),
    ...loads.map((load) => requestsOf(format, load)),
  ]);
  await runWorkloads(workloads, options);
}

function loadsFor({ smoke }: BenchOptions): NbdLoad[] {
  const depths = smoke ? [16] : [1, 16, 64];
  return (['read', 'write'] as const).flatMap((rw) => [
    ...depths.map((depth) => ({
      ...{ rw, depth, bytes: 4096, order: 'random' as const },
      count: smoke ? 100 : depth === 1 ? 10_000 : 50_000,
    })),
    { rw, depth: 4, bytes: MiB, order: 'sequential', count: smoke ? 8 : 2048 },
  ]);
}

/** From nothing until clients may connect, with the memory that it takes then. */
function startOf(format: Format): Workload {
  return {
    name: `start-up, ${format}`,
    run: async ({ folder, smoke, race }) => {
      const disk = await makeDisk(folder, format, smoke);
      await race(
        KINDS.map((kind): Contender => {
          let daemon: RunningDaemon | undefined;
          return {
            name: kind,
            run: async () => {
              daemon = await startDaemon(kind, folder, disk, format);
              return daemon.cpuMs();
            },
            memoryBytes: async () => daemon!.restingBytes(),
            clear: async () => daemon?.stop(),
          };
        }),
      );
    },
  };
}

function requestsOf(format: Format, load: NbdLoad): Workload {
  const size = load.bytes === MiB ? '1 MiB' : '4 KiB';
  return {
    name: `${size} ${load.order} ${load.rw}s, depth ${load.depth}, ${format}`,
    run: async ({ folder, smoke, race }) => {
      const disk = await makeDisk(folder, format, smoke);
      await race(
        KINDS.map((kind): Contender => {
          let daemon: RunningDaemon | undefined;
          return {
            name: kind,
            prepare: async () => {
              daemon = await startDaemon(kind, folder, disk, format);
              // What ours compiles while it begins is not what is asked here.
              const warm = { ...load, rw: 'read', count: smoke ? 1 : 3000, bytes: 4096 } as const;
              await nbdLoad(daemon.uri, { ...warm, order: 'random', depth: 16 });
            },
            run: async () => {
              const before = daemon!.cpuMs();
              await nbdLoad(daemon!.uri, load);
              return daemon!.cpuMs() - before;
            },
            clear: async () => daemon?.stop(),
          };
        }),
      );
    },
  };
}

/** A disk full of data. */
async function makeDisk(folder: string, format: Format, smoke: boolean): Promise<string> {
  const raw = join(folder, 'disk.raw');
  const file = await open(raw, 'w');
  const bytes = randomFillSync(Buffer.alloc(8 * MiB));
  const size = smoke ? 8 * MiB : 512 * MiB;
  for (let at = 0; at < size; at += bytes.length) await file.write(bytes, 0, bytes.length, at);
  await file.close();
  if (format === 'raw') return raw;
  const image = join(folder, 'disk.qcow2');
  await exec('qemu-img', ['convert', '-O', 'qcow2', raw, image]);
  return image;
}
