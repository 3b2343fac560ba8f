/** The copy command against the tools that people use today, each as they would start it. */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type BenchOptions,
  type Contender,
  exec,
  type Result,
  race,
  report,
} from './support/bench.js';
import { serve } from './support/nbdkit.js';

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;
const TiB = 1024 * GiB;

const LACUNA = new URL('../dist/cli/main.js', import.meta.url).pathname;

export async function benchCopy(options: BenchOptions): Promise<void> {
  const folder = await mkdtemp(join(process.env.LACUNA_BENCH_DIR ?? tmpdir(), 'lacuna-bench-'));
  try {
    const results: Result[] = [];
    for (const [name, workload] of Object.entries(WORKLOADS)) {
      if (options.only === undefined || name.includes(options.only)) {
        results.push(...(await workload(name, folder, options)));
      }
    }
    report(results, options);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

type Workload = (name: string, folder: string, options: BenchOptions) => Promise<Result[]>;

const WORKLOADS: Record<string, Workload> = {
  /** A large disk that holds next to nothing: the case that the project exists for. */
  'sparse file to file': async (name, folder, { smoke, runs }) => {
    const source = join(folder, 'sparse.raw');
    await makeSparse(
      source,
      smoke ? { size: 16 * GiB, extents: 40 } : { size: TiB, extents: 4000 },
    );
    const contender = (tool: string, command: (target: string) => string[]): Contender => {
      const target = join(folder, `${tool.replaceAll(/\W+/g, '-')}.raw`);
      const [program, ...args] = command(target);
      return {
        name: tool,
        run: async () => {
          await rm(target, { force: true });
          await exec(program, args);
        },
        verify: async () =>
          void (await exec('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', source, target])),
      };
    };
    return race(
      name,
      [
        contender('lacuna copy', (target) => [
          process.execPath,
          LACUNA,
          'copy',
          '--no-flush',
          source,
          target,
        ]),
        contender('lacuna copy, flushed', (target) => [
          process.execPath,
          LACUNA,
          'copy',
          source,
          target,
        ]),
        contender('qemu-img convert', (target) => [
          'qemu-img',
          'convert',
          '-f',
          'raw',
          '-O',
          'raw',
          source,
          target,
        ]),
        contender('qemu-img convert -t writeback, flushed', (target) => [
          'qemu-img',
          'convert',
          '-t',
          'writeback',
          '-f',
          'raw',
          '-O',
          'raw',
          source,
          target,
        ]),
        contender('qemu-img convert -W -m 16', (target) => [
          'qemu-img',
          'convert',
          '-W',
          '-m',
          '16',
          '-f',
          'raw',
          '-O',
          'raw',
          source,
          target,
        ]),
        contender('cp --sparse=auto', (target) => ['cp', '--sparse=auto', source, target]),
      ],
      runs,
    );
  },

  /** Bytes through two sockets, nothing to skip: what the data plane itself costs. */
  'dense NBD to NBD': async (name, _folder, { smoke, runs }) => {
    const source = await serve(['pattern', smoke ? '64M' : '8G']);
    const target = await serve(['null', smoke ? '64M' : '8G']);
    try {
      const uris = [source.uri, target.uri];
      return await race(
        name,
        [
          { name: 'lacuna copy', run: () => run(process.execPath, [LACUNA, 'copy', ...uris]) },
          { name: 'nbdcopy', run: () => run('nbdcopy', uris) },
          {
            name: 'qemu-img convert -n -W -m 16',
            run: () =>
              run('qemu-img', [
                'convert',
                '-n',
                '-W',
                '-m',
                '16',
                '-f',
                'raw',
                '-O',
                'raw',
                ...uris,
              ]),
          },
        ],
        runs,
      );
    } finally {
      await Promise.all([source.stop(), target.stop()]);
    }
  },
};

async function run(program: string, args: string[]): Promise<void> {
  await exec(program, args);
}

/** Extents of 64 KiB with random bytes at places that a fixed seed scatters over the disk. */
async function makeSparse(path: string, { size, extents }: { size: number; extents: number }) {
  const file = await open(path, 'w');
  try {
    await file.truncate(size);
    const bytes = Buffer.alloc(64 * KiB);
    let state = 0x9e3779b9;
    const next = () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return state >>> 0;
    };
    for (let i = 0; i < extents; i++) {
      for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE(next(), at);
      const slot = Math.floor((next() / 2 ** 32) * (size / bytes.length));
      await file.write(bytes, 0, bytes.length, slot * bytes.length);
    }
  } finally {
    await file.close();
  }
}
