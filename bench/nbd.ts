/** Our NBD server and client beside the ones that people use today, over Unix sockets. */
import { randomFillSync } from 'node:crypto';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NbdClient, parseNbdUri } from 'lacuna/nbd';
import {
  type BenchOptions,
  type Contender,
  exec,
  type Result,
  race,
  report,
} from './support/bench.js';
import { serve } from './support/nbdkit.js';
import { startServer } from './support/server.js';

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;

const LACUNA = new URL('../dist/cli/main.js', import.meta.url).pathname;

export async function benchNbd(options: BenchOptions): Promise<void> {
  const folder = await mkdtemp(join(process.env.LACUNA_BENCH_DIR ?? tmpdir(), 'lacuna-bench-'));
  try {
    const results: Result[] = [];
    for (const workload of WORKLOADS) results.push(...(await workload(folder, options)));
    report(results, options);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

type Workload = (folder: string, options: BenchOptions) => Promise<Result[]>;

const wanted = (name: string, { only }: BenchOptions) => only === undefined || name.includes(only);

const WORKLOADS: readonly Workload[] = [serveFile, readAll, mapExtents];

const RANDOM = 'serve 4 KiB random reads, 64 at a time';
const dense = (connections: number) => `serve a dense file, ${connections} connections`;
const SERVED = [dense(4), dense(1), RANDOM];

/** One file, warm in the page cache, from three servers to the same client. */
async function serveFile(folder: string, options: BenchOptions): Promise<Result[]> {
  if (!SERVED.some((name) => wanted(name, options))) return [];
  const path = join(folder, 'dense.raw');
  await makeDense(path, options.smoke ? 64 * MiB : 4 * GiB);
  const servers = [
    { name: 'lacuna serve', program: process.execPath, args: [LACUNA, 'serve', path, '--socket'] },
    {
      name: 'qemu-nbd',
      program: 'qemu-nbd',
      args: ['-f', 'raw', '-r', '-t', '-e', '8', path, '-k'],
    },
    { name: 'nbdkit file', program: 'nbdkit', args: ['-f', '-r', 'file', path, '-U'] },
  ].map((each, i) => ({ ...each, socket: join(folder, `${i}.sock`) }));
  const running = [];
  for (const { program, args, socket } of servers) {
    running.push(await startServer(program, [...args, socket], socket));
  }
  const contenders = (client: (uri: string) => [string, ...string[]]): Contender[] =>
    servers.map(({ name, socket }) => {
      const [program, ...args] = client(`nbd+unix:///?socket=${socket}`);
      return { name, run: async () => void (await exec(program, args, { cwd: folder })) };
    });
  try {
    const results: Result[] = [];
    for (const connections of [4, 1]) {
      const client = (uri: string): [string, ...string[]] => [
        'nbdcopy',
        '--no-extents',
        `--connections=${connections}`,
        uri,
        'null:',
      ];
      const name = dense(connections);
      if (wanted(name, options))
        results.push(...(await race(name, contenders(client), options.runs)));
    }
    if (wanted(RANDOM, options)) {
      results.push(
        ...(await race(
          RANDOM,
          contenders((uri) => fio(uri, options)),
          options.runs,
        )),
      );
    }
    return results;
  } finally {
    await Promise.all(running.map((each) => each.stop()));
  }
}

function fio(uri: string, { smoke }: BenchOptions): [string, ...string[]] {
  const job = ['--name=r', '--ioengine=nbd', `--uri=${uri}`, '--rw=randread', '--bs=4k'];
  const amount = smoke ? ['--size=64M', '--io_size=4M'] : ['--size=4G', '--io_size=1G'];
  return ['fio', ...job, '--iodepth=64', ...amount];
}

/** All bytes of a server that makes them up, over one connection, into nothing. */
async function readAll(_folder: string, options: BenchOptions): Promise<Result[]> {
  const results: Result[] = [];
  for (const plugin of ['null', 'pattern']) {
    const name = `client reads nbdkit ${plugin}, 1 connection`;
    if (!wanted(name, options)) continue;
    const size = options.smoke ? 64 * MiB : 8 * GiB;
    const server = await serve(['--filter=noextents', plugin, String(size)]);
    const nbdcopy = ['--no-extents', '--connections=1', server.uri, 'null:'];
    try {
      const contenders: Contender[] = [
        { name: 'NbdClient', run: () => readWith(server.uri, size) },
        { name: 'nbdcopy', run: async () => void (await exec('nbdcopy', nbdcopy)) },
      ];
      results.push(...(await race(name, contenders, options.runs)));
    } finally {
      await server.stop();
    }
  }
  return results;
}

async function readWith(uri: string, size: number): Promise<void> {
  const location = parseNbdUri(uri);
  const client = await NbdClient.connect({ server: location.server, export: location.export });
  const length = 256 * KiB;
  let next = 0;
  const reader = async () => {
    const target = new Uint8Array(length);
    while (next < size) {
      const offset = next;
      next += length;
      await client.read(offset, target.subarray(0, Math.min(length, size - offset)));
    }
  };
  await Promise.all(Array.from({ length: 16 }, reader));
  await client.close();
}

/** A disk of which every other 4 KiB is a hole: 300,000 extents. */
async function mapExtents(folder: string, options: BenchOptions): Promise<Result[]> {
  const count = options.smoke ? 2000 : 300_000;
  const name = `map ${count} extents of qemu-storage-daemon`;
  if (!wanted(name, options)) return [];
  const path = join(folder, 'alternating.raw');
  await makeAlternating(path, count);
  const socket = join(folder, 'qsd.sock');
  const nodes = ['--blockdev', `driver=file,node-name=file,filename=${path}`];
  nodes.push('--nbd-server', `addr.type=unix,addr.path=${socket}`);
  nodes.push('--export', 'type=nbd,id=e,node-name=file,name=disk');
  const server = await startServer('qemu-storage-daemon', nodes, socket);
  const uri = `nbd+unix:///disk?socket=${socket}`;
  const run = (program: string, args: string[]) => async () =>
    void (await exec(program, args, { maxBuffer: 2 ** 28 }));
  try {
    return await race(
      name,
      [
        { name: 'lacuna map', run: run(process.execPath, [LACUNA, 'map', '--json', uri]) },
        { name: 'qemu-img map', run: run('qemu-img', ['map', '--output=json', '-f', 'raw', uri]) },
        { name: 'nbdinfo --map', run: run('nbdinfo', ['--json', '--map', uri]) },
      ],
      options.runs,
    );
  } finally {
    await server.stop();
  }
}

async function makeDense(path: string, size: number): Promise<void> {
  const file = await open(path, 'w');
  const bytes = Buffer.alloc(16 * MiB);
  for (let at = 0; at < size; at += bytes.length) {
    randomFillSync(bytes, 0, 64 * KiB);
    await file.write(bytes, 0, bytes.length, at);
  }
  await file.close();
}

async function makeAlternating(path: string, extents: number): Promise<void> {
  const file = await open(path, 'w');
  const block = Buffer.alloc(4 * KiB, 1);
  await file.truncate(extents * block.length);
  for (let i = 0; i < extents; i += 2) await file.write(block, 0, block.length, i * block.length);
  await file.close();
}
