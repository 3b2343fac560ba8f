/** Copies from and to qcow2 images against QEMU's own tool, each a whole process as a user would start it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GiB, MiB, makeDense, makeSparse, TiB } from './copy/disks.js';
import { type Command, lacuna, makesFile } from './copy/tools.js';
import { type BenchOptions, exec, type Result, race, report } from './support/bench.js';

/** One direction: from a format to another. */
interface Direction {
  name: string;
  from: 'raw' | 'qcow2';
  to: 'raw' | 'qcow2';
  /** Which side is compressed. */
  compressed?: 'source' | 'target';
}

const DIRECTIONS: readonly Direction[] = [
  { name: 'qcow2 to raw', from: 'qcow2', to: 'raw' },
  { name: 'raw to qcow2', from: 'raw', to: 'qcow2' },
  { name: 'qcow2 to qcow2', from: 'qcow2', to: 'qcow2' },
  { name: 'raw to compressed qcow2', from: 'raw', to: 'qcow2', compressed: 'target' },
  { name: 'compressed qcow2 to raw', from: 'qcow2', to: 'raw', compressed: 'source' },
];

interface Disk {
  name: string;
  /** Whether there is much to compress, so that a compressed copy takes a smaller one. */
  dense: boolean;
  make(path: string, options: { smoke: boolean; compressed: boolean }): Promise<void>;
}

const DISKS: readonly Disk[] = [
  {
    name: '1 TiB with 4,000 scattered extents of 64 KiB',
    dense: false,
    make: (path, { smoke }) =>
      makeSparse(path, smoke ? { size: 16 * GiB, extents: 40 } : { size: TiB, extents: 4000 }),
  },
  {
    name: 'dense',
    dense: true,
    make: (path, { smoke, compressed }) =>
      makeDense(path, smoke ? 4 * MiB : compressed ? GiB : 4 * GiB, compressed),
  },
];

export async function benchQcow2(options: BenchOptions): Promise<void> {
  const { only } = options;
  const results: Result[] = [];
  for (const disk of DISKS) {
    for (const direction of DIRECTIONS) {
      const size = disk.dense ? ` ${direction.compressed ? 1 : 4} GiB` : '';
      const name = `${direction.name}: ${disk.name}${size}`;
      if (only !== undefined && !name.includes(only)) continue;
      const folder = await mkdtemp(join(process.env.LACUNA_BENCH_DIR ?? tmpdir(), 'lacuna-bench-'));
      try {
        results.push(...(await run(name, disk, direction, folder, options)));
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    }
  }
  report(results, options);
}

async function run(
  name: string,
  disk: Disk,
  { from, to, compressed }: Direction,
  folder: string,
  { smoke, runs }: BenchOptions,
): Promise<Result[]> {
  const raw = join(folder, 'disk.raw');
  await disk.make(raw, { smoke, compressed: compressed !== undefined });
  const source = join(folder, `disk.${from}`);
  if (from === 'qcow2') {
    const flags = compressed === 'source' ? ['-c'] : [];
    await exec('qemu-img', ['convert', ...flags, '-f', 'raw', '-O', 'qcow2', raw, source]);
    await rm(raw);
  }
  const flags = compressed === 'target' ? ['-c'] : [];
  const convert = (target: string, ...more: string[]): Command => {
    return ['qemu-img', 'convert', ...flags, ...more, '-f', from, '-O', to, source, target];
  };
  const made = { folder, source, format: from, targetFormat: to };
  return race(
    name,
    [
      makesFile('lacuna copy --no-flush', made, (target) =>
        lacuna(...flags, '--no-flush', source, target),
      ),
      makesFile('qemu-img convert -m 16 -W', made, (target) => convert(target, '-m', '16', '-W')),
      makesFile('qemu-img convert', made, (target) => convert(target)),
    ],
    runs,
  );
}
