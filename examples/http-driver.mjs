/**
 * A driver that reads a disk over HTTP, by ranges: a copy fetches what it needs, in many requests at the same time.
 *
 *     node examples/http-driver.mjs [URL TARGET]
 *
 * Without arguments it serves a disk of its own on a port of this machine, and copies that.
 */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compare, copy, createRawFile, Device, openDevice } from 'lacuna';
import { LacunaError } from 'lacuna/errors';

const MIB = 1024 * 1024;

/** A file behind a URL, as it was when it was opened. @implements {import('lacuna').Driver} */
class HttpDisk {
  // HTTP knows nothing of holes: all of it counts as data, and zeroes are seen only where they are looked for.
  capabilities = {};
  limits = {
    minimum: 1,
    preferred: MIB,
    maximum: 8 * MIB,
    maximumZero: 8 * MIB,
    zeroAlignment: 1,
    discardAlignment: 1,
  };

  static async open(url) {
    const reply = await fetch(url, { method: 'HEAD' });
    const size = Number(reply.headers.get('content-length'));
    if (!reply.ok || reply.headers.get('accept-ranges') !== 'bytes' || !(size > 0)) {
      const message = `${url} is not there, or its server has no ranges (${reply.status})`;
      throw new LacunaError('ERR_DEVICE_OPEN', message, { device: url });
    }
    return new HttpDisk(url, size, reply.headers.get('etag'));
  }

  constructor(url, size, etag) {
    this.name = url;
    this.size = size;
    this.etag = etag;
  }

  async read(offset, target, { signal } = {}) {
    const end = offset + target.length - 1;
    const headers = {
      range: `bytes=${offset}-${end}`,
      ...(this.etag && { 'if-match': this.etag }),
    };
    const reply = await fetch(this.name, { headers, signal }).catch((cause) => {
      throw this.#failed(offset, target.length, cause.cause?.message ?? cause.message, cause);
    });
    // Without a 206 these are other bytes than those asked for, or a file that has changed since.
    if (reply.status !== 206) {
      await reply.body?.cancel();
      throw this.#failed(offset, target.length, `the server answered ${reply.status}`);
    }
    let at = 0;
    for await (const piece of reply.body) {
      if (at + piece.length > target.length) break;
      target.set(piece, at);
      at += piece.length;
    }
    if (at !== target.length) throw this.#failed(offset, target.length, `${at} bytes came`);
  }

  async close() {}

  #failed(offset, length, why, cause) {
    const message = `Cannot read ${length} bytes at ${offset} of ${this.name}: ${why}`;
    return new LacunaError('ERR_DEVICE_IO', message, { device: this.name, offset, length, cause });
  }
}

async function fetchDisk(url, target) {
  const source = new Device(await HttpDisk.open(url));
  try {
    // Tries again what fails, and makes holes of zeroes.
    const retry = { attempts: 5 };
    return await copy({
      source,
      target,
      requests: 8,
      detectZeroes: 'unmap',
      onReadError: 'retry',
      retry,
    });
  } finally {
    await source.close();
  }
}

/** A small server of one file, which fails now and then, as servers do. */
async function serveFile(path) {
  const file = await open(path);
  const { size } = await file.stat();
  let requests = 0;
  const server = createServer(async ({ method, headers }, reply) => {
    reply.setHeader('accept-ranges', 'bytes').setHeader('etag', '"1"');
    if (method === 'HEAD') return reply.setHeader('content-length', size).end();
    if (++requests % 5 === 0) return reply.writeHead(503).end();
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(headers.range).map(Number);
    const bytes = Buffer.alloc(to - from + 1);
    await file.read(bytes, 0, bytes.length, from);
    reply.writeHead(206, { 'content-range': `bytes ${from}-${to}/${size}` }).end(bytes);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await file.close();
  };
  return { url: `http://127.0.0.1:${server.address().port}/disk.raw`, close };
}

const [url, target] = process.argv.slice(2);
if (url !== undefined && target !== undefined) {
  const { movedBytes, size } = await fetchDisk(url, target);
  console.log(`fetched ${size} bytes, of which ${movedBytes} are written`);
} else {
  const folder = await mkdtemp(join(tmpdir(), 'lacuna-example-'));
  const [source, copied] = [join(folder, 'disk.raw'), join(folder, 'copy.raw')];
  await createRawFile(source, 32 * MIB);
  const disk = await openDevice(source, { writable: true });
  await disk.write(3 * MIB, Buffer.alloc(5 * MIB, 'over the net'));
  await disk.close();
  const server = await serveFile(source);
  try {
    const { retries } = await fetchDisk(server.url, copied);
    console.log(`${retries} requests failed and were made again`);
    const { equal } = await compare({ a: source, b: copied });
    console.log(equal ? 'source and target are equal' : 'source and target differ');
  } finally {
    await server.close();
    await rm(folder, { recursive: true });
  }
}
