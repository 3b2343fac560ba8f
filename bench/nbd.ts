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
  await makeDense(path, options.smoke ? 8 * MiB : 4 * GiB);
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
      const uri = `nbd+unix:///?socket=${socket}`;
      const [program, ...args] = client(uri);
      return {
        name,
        run: async () => void (await exec(program, args, { cwd: folder })),
        // The clients keep nothing, so what is served is looked at by one that does.
        verify: async () =>
          void (await exec('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', path, uri])),
      };
    });
  try {
    const results: Result[] = [];
    for (const connections of [4, 1]) {
      const client = (uri: string): [string, ...string[]] => [
        'nbdcopy',
        '--no-extents',
        `--connections=${connections}`,
        // Of which it has one for each processor otherwise, and never more connections.
        `--threads=${connections}`,
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
  const amount = smoke ? ['--size=8M', '--io_size=512K'] : ['--size=4G', '--io_size=1G'];
  return ['fio', ...job, '--iodepth=64', ...amount];
}

/** All bytes of a server that makes them up, over one connection, into nothing. */
async function readAll(_folder: string, options: BenchOptions): Promise<Result[]> {
  const results: Result[] = [];
  for (const plugin of ['null', 'pattern']) {
    const name = `client reads nbdkit ${plugin}, 1 connection`;
    if (!wanted(name, options)) continue;
    const size = options.smoke ? 8 * MiB : 8 * GiB;
    const server = await serve(['--filter=noextents', plugin, String(size)]);
    const nbdcopy = ['--no-extents', '--connections=1', server.uri, 'null:'];
    try {
      const contenders: Contender[] = [
        {
          name: 'NbdClient',
          run: () => readWith(server.uri, size),
          verify: () => readWith(server.uri, size, madeBy(plugin)),
        },
        { name: 'nbdcopy', run: async () => void (await exec('nbdcopy', nbdcopy)) },
      ];
      results.push(...(await race(name, contenders, options.runs)));
    } finally {
      await server.stop();
    }
  }
  return results;
}

/** The bytes that a plugin makes up from `offset` on; the view is used again for the next piece. */
type Maker = (offset: number) => Uint8Array;

/** Bytes of one read. */
const PIECE = 256 * KiB;

/** What nbdkit says of its plugins: `null` is all zeroes, `pattern` every 8 bytes their own offset, big-endian. */
function madeBy(plugin: string): Maker {
  const bytes = Buffer.alloc(PIECE);
  if (plugin === 'null') return () => bytes;
  for (let at = 0; at < PIECE; at += 8) bytes.writeUInt32BE(at, at + 4);
  const inFirst = new Uint32Array(Uint8Array.from(bytes).buffer);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, PIECE / 4);
  const start = Buffer.alloc(8);
  return (offset) => {
    // Pieces are aligned, so their start has no bit in common with the offsets inside one.
    start.writeBigUInt64BE(BigInt(offset));
    const [high, low] = new Uint32Array(start.buffer, start.byteOffset, 2);
    for (let i = 0; i < words.length; i += 2) {
      words[i] = high;
      words[i + 1] = low | inFirst[i + 1];
    }
    return bytes;
  };
}

/** Reads all, 16 pieces at a time, and looks at the bytes where it is said what they must be. */
async function readWith(uri: string, size: number, expected?: Maker): Promise<void> {
  const location = parseNbdUri(uri);
  const client = await NbdClient.connect({ server: location.server, export: location.export });
  let next = 0;
  const reader = async () => {
    const target = new Uint8Array(PIECE);
    while (next < size) {
      const offset = next;
      next += PIECE;
      const length = Math.min(PIECE, size - offset);
      await client.read(offset, target.subarray(0, length));
      if (expected === undefined) continue;
      const same = Buffer.compare(target.subarray(0, length), expected(offset).subarray(0, length));
      if (same !== 0) throw new Error(`wrong bytes in the ${length} at ${offset}`);
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
  const expected = alternation(count);
  const contender = (name: string, ...[program, ...args]: [string, ...string[]]): Contender => {
    let printed = '';
    return {
      name,
      run: async () => {
        printed = (await exec(program, args, { maxBuffer: 2 ** 28 })).stdout;
      },
      verify: async () => {
        if (mapIn(printed) !== expected) throw new Error(`${name} printed another map`);
      },
    };
  };
  try {
    return await race(
      name,
      [
        contender('lacuna map', process.execPath, LACUNA, 'map', '--json', uri),
        contender('qemu-img map', 'qemu-img', 'map', '--output=json', '-f', 'raw', uri),
        contender('nbdinfo --map', 'nbdinfo', '--json', '--map', uri),
      ],
      options.runs,
    );
  } finally {
    await server.stop();
  }
}

/** The map of {@link makeAlternating}: where each extent starts, its length, and whether it reads as zero. */
function alternation(extents: number): string {
  return Array.from({ length: extents }, (_, i) => `${i * 4096} 4096 ${i % 2 === 1}`).join('\n');
}

/** The same of what a tool printed: ours and qemu-img say it in words, nbdinfo in NBD's bits. */
function mapIn(json: string): string {
  interface Printed {
    start?: number;
    offset?: number;
    length: number;
    zero?: boolean;
    type?: number;
  }
  return (JSON.parse(json) as Printed[])
    .map(({ start, offset, length, zero, type = 0 }) => {
      return `${start ?? offset} ${length} ${zero ?? (type & 2) !== 0}`;
    })
    .join('\n');
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
