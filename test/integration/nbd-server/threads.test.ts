/** A server that serves its clients in several threads, beside what one thread would do. */
import type { ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readlinkSync, renameSync, truncateSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { createServer, type Device, openDevice, type ServeOptions } from 'lacuna';
import { Bitmap } from 'lacuna/bitmap';
import type { LacunaError } from 'lacuna/errors';
import { NbdClient, type NbdConnectOptions, type NbdServer, parseNbdUri } from 'lacuna/nbd';
import { describe, expect, onTestFinished, test } from 'vitest';
import { makeCertificates } from '../../support/certificates.js';
import { emptied, finish, RawClient } from '../../support/nbd-server.js';
import { noise } from '../../support/noise.js';
import { usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';

const KiB = 1024;
const MiB = 1024 * KiB;
/** It has no more connections than threads, of which there is one for each processor. */
const EIGHT = ['--threads=8', '--connections=8'];
const CONTEXT = 'qemu:dirty-bitmap:b';

const peers = usePeers();

interface Served {
  readonly server: NbdServer;
  readonly uri: string;
  readonly socket: string;
  readonly file: string;
  readonly content: Buffer;
  readonly device: Device;
  /** Threads that it has started, in order. */
  readonly threads: Worker[];
  readonly refused: LacunaError[];
  readonly deviceErrors: unknown[];
}

/** A file of random bytes, served by so many threads beside this one. */
async function serveFile(
  options: Partial<ServeOptions> & { size?: number; bitmap?: Bitmap; writable?: boolean } = {},
): Promise<Served> {
  const { size = 8 * MiB, bitmap, writable = false, ...rest } = options;
  const folder = await peers.folder();
  const [file, socket] = [join(folder, 'disk.raw'), join(folder, 's')];
  const content = noise(size);
  writeFileSync(file, content);
  const threads: Worker[] = [];
  const note = (worker: Worker) => void threads.push(worker);
  process.on('worker', note);
  const refused: LacunaError[] = [];
  const deviceErrors: unknown[] = [];
  const device = await openDevice(file, { writable });
  const server = await createServer({
    exports: [{ name: '', device, ...(bitmap && { bitmaps: { b: bitmap } }) }],
    threads: 2,
    onRefused: (error) => refused.push(error),
    onDeviceError: (error) => deviceErrors.push(error),
    ...rest,
  });
  await server.listen({ type: 'unix', path: socket });
  onTestFinished(async () => {
    await server.close({ timeoutMs: 100 });
    await device.close();
    process.off('worker', note);
  });
  const uri = server.uri('');
  return { server, uri, socket, file, content, device, threads, refused, deviceErrors };
}

async function connect(uri: string, options: Partial<NbdConnectOptions> = {}): Promise<NbdClient> {
  const client = await NbdClient.connect({ server: parseNbdUri(uri).server, ...options });
  onTestFinished(() => client.close());
  return client;
}

/** So many clients at a time: the first of them is served by this thread, the next by others. */
async function connectAll(
  { uri }: Served,
  count: number,
  options: Partial<NbdConnectOptions> = {},
): Promise<NbdClient[]> {
  const clients: NbdClient[] = [];
  for (let i = 0; i < count; i++) clients.push(await connect(uri, options));
  return clients;
}

async function readAll(client: NbdClient, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += MiB) await client.read(at, bytes.subarray(at, at + MiB));
  return bytes;
}

/** Counts the sockets that this process holds and did not hold before: of each client both ends. */
function newSockets(): () => number {
  const sockets = () =>
    readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        const name = readlinkSync(`/proc/self/fd/${fd}`);
        return name.startsWith('socket:') ? [name] : [];
      } catch {
        return [];
      }
    });
  // Those of an earlier test may still be closing.
  const before = new Set(sockets());
  return () => sockets().filter((name) => !before.has(name)).length;
}

describe('clients beyond the first', () => {
  test('are served by other threads, each the same bytes', async () => {
    const served = await serveFile();
    const openSockets = newSockets();
    const clients = await connectAll(served, 5);
    expect(served.threads).toHaveLength(2);
    // What this thread has handed over it closes when it hears that it was taken.
    await expect.poll(openSockets).toBe(10);
    expect(served.server.connectionCount).toBe(5);
    const all = await Promise.all(clients.map((client) => readAll(client, 8 * MiB)));
    for (const bytes of all) expect(bytes.equals(served.content)).toBe(true);
    await Promise.all(clients.map((client) => client.close()));
    await emptied(served.server);
    expect(served.refused).toEqual([]);
    expect(served.deviceErrors).toEqual([]);
  });

  test('are those of nbdcopy with 8 connections, on TCP as well', async () => {
    const served = await serveFile({ size: 64 * MiB });
    const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
    const copied = `${served.file}.copy`;
    const { code, stderr } = await finish('nbdcopy', [...EIGHT, served.uri, copied]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(digest(await readFile(copied))).toBe(digest(served.content));
    expect(served.threads).toHaveLength(2);

    const { device } = served;
    const onTcp = await createServer({ exports: [{ name: '', device }], threads: 3 });
    await onTcp.listen({ type: 'inet', host: '127.0.0.1', port: 0 });
    try {
      const again = await finish('nbdcopy', [...EIGHT, onTcp.uri(''), copied]);
      expect(again.code).toBe(0);
      expect(digest(await readFile(copied))).toBe(digest(served.content));
    } finally {
      await onTcp.close();
    }
  });

  test('see the bitmaps of the export, as they are when they ask', async () => {
    const bitmap = new Bitmap({ size: 8 * MiB, granularity: 64 * KiB });
    bitmap.set(MiB, 64 * KiB);
    const served = await serveFile({ bitmap });
    const clients = await connectAll(served, 3, { contexts: [CONTEXT] });
    const dirtyBytes = async (client: NbdClient) => {
      const [list] = await client.blockStatus(0, 8 * MiB, [CONTEXT]);
      const dirty = [...list].filter(({ flags }) => flags !== 0);
      return dirty.reduce((bytes, { length }) => bytes + length, 0);
    };
    expect(await Promise.all(clients.map(dirtyBytes))).toEqual([65536, 65536, 65536]);
    bitmap.set(5 * MiB, 128 * KiB);
    expect(await Promise.all(clients.map(dirtyBytes))).toEqual([196608, 196608, 196608]);
  });

  test.each([
    ['a shared secret', () => ({ type: 'psk', username: 'a', key: '00112233' }) as const],
    ['certificates', () => ({ type: 'x509', certificates: '' }) as const],
  ])('speak TLS with %s', async (_, tlsOf) => {
    const certificates = await makeCertificates(await peers.folder());
    const tls = tlsOf();
    if (tls.type === 'x509') Object.assign(tls, { certificates });
    const served = await serveFile({ tls });
    const clients = await connectAll(served, 3, {
      tls: tls.type === 'psk' ? tls : { ...tls, hostname: 'localhost' },
    });
    expect(served.threads).toHaveLength(2);
    for (const client of clients) {
      expect((await readAll(client, 8 * MiB)).equals(served.content)).toBe(true);
    }
    // Without TLS a client is told nothing, whichever thread it meets.
    const plain = await finish('nbdinfo', [served.uri.replace('nbds', 'nbd')]);
    expect(plain.code).not.toBe(0);
  });
});

test('a program that is no file has threads as well', async () => {
  const folder = await peers.folder();
  const [file, socket] = [join(folder, 'disk.raw'), join(folder, 's')];
  writeFileSync(file, noise(MiB));
  const text = `
    import { createServer, openDevice } from 'lacuna';
    import { NbdClient } from 'lacuna/nbd';
    const device = await openDevice(${JSON.stringify(file)});
    const exports = [{ name: '', device }];
    const server = await createServer({ exports, threads: 1, onDeviceError: console.log });
    const address = await server.listen({ type: 'unix', path: ${JSON.stringify(socket)} });
    const clients = [];
    for (let i = 0; i < 2; i++) {
      const client = await NbdClient.connect({ server: address });
      await client.read(0, Buffer.alloc(512));
      clients.push(client);
    }
    for (const client of clients) await client.close();
    await server.close();
    await device.close();
  `;
  const args = ['--input-type=module', '--eval', text];
  const cwd = process.cwd();
  expect(await finish(process.execPath, args, { cwd })).toEqual({
    code: 0,
    stdout: '',
    stderr: '',
  });
});

describe('there are no other threads', () => {
  test.each([
    ['where it is said', { threads: 0 }],
    ['for a device that can be written', { writable: true }],
  ])('%s', async (_, options) => {
    const served = await serveFile(options);
    const clients = await connectAll(served, 3);
    expect((await readAll(clients[2], 8 * MiB)).equals(served.content)).toBe(true);
    expect(served.threads).toEqual([]);
  });

  test('for an image that others may write, so that all clients see the same', async () => {
    const image = join(await peers.folder(), 'disk.qcow2');
    await finish('qemu-img', ['create', '-f', 'qcow2', image, '1M']);
    await using device = await openDevice(image, { forceShare: true });
    await using server = await createServer({ exports: [{ name: '', device }], threads: 2 });
    await server.listen({ type: 'unix', path: `${image}.sock` });
    const byteOf = async (client: NbdClient) => {
      const byte = Buffer.alloc(1);
      await client.read(0, byte);
      return byte[0];
    };
    const first = await connect(server.uri(''));
    const before = await byteOf(first);
    const { code } = await finish('qemu-io', ['-c', 'write -P 7 0 64k', image]);
    expect(code).toBe(0);
    const others = [await connect(server.uri('')), await connect(server.uri(''))];
    expect(await Promise.all(others.map(byteOf))).toEqual([before, before]);
  });

  test('for a device that is but in this one', async () => {
    const device = await openDevice('driver=memory,size=1M');
    await using server = await createServer({ exports: [{ name: '', device }], threads: 2 });
    const path = join(await peers.folder(), 's');
    await server.listen({ type: 'unix', path });
    const threads: Worker[] = [];
    const note = (worker: Worker) => void threads.push(worker);
    process.on('worker', note);
    for (const uri of [server.uri(''), server.uri('')]) await connect(uri);
    process.off('worker', note);
    expect(threads).toEqual([]);
    await device.close();
  });

  test('without koffi', async () => {
    const { file, content } = await serveFile();
    const args = ['serve', file, '--threads', '3', '--socket', `${file}.sock`];
    const copied = `${file}.copy`;
    const copyAll = async (child: ChildProcess) => {
      await once(child.stdout!, 'data');
      await finish('nbdcopy', ['--connections=4', `nbd+unix:///?socket=${file}.sock`, copied]);
      child.kill();
    };
    let copying: Promise<void> | undefined;
    const started = (child: ChildProcess) => {
      copying = copyAll(child);
    };
    const { code, stderr } = await runCli(args, { env: { LACUNA_FFI: 'off' }, started });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    await copying;
    expect((await readFile(copied)).equals(content)).toBe(true);
  });
});

describe('a thread that cannot serve', () => {
  test('leaves its clients to the server, where another file has the name by now', async () => {
    const served = await serveFile();
    renameSync(served.file, `${served.file}.old`);
    writeFileSync(served.file, Buffer.alloc(8 * MiB, 1));
    const openSockets = newSockets();
    const clients = await connectAll(served, 4);
    await expect.poll(openSockets).toBe(8);
    for (const client of clients) {
      expect((await readAll(client, 8 * MiB)).equals(served.content)).toBe(true);
    }
    expect(served.deviceErrors).toHaveLength(2);
    expect(served.deviceErrors[0]).toMatchObject({
      code: 'ERR_DEVICE_OPEN',
      message: expect.stringMatching(/^One thread less serves clients: .* another file/),
    });
    expect(served.server.connectionCount).toBe(4);
  });

  test('loses its clients when it dies, and only those', async () => {
    const served = await serveFile();
    const [first, second, third] = await connectAll(served, 3);
    await served.threads[0].terminate();
    await expect(readAll(second, MiB)).rejects.toMatchObject({ code: 'ERR_NBD_DISCONNECTED' });
    for (const client of [first, third]) {
      expect((await readAll(client, 8 * MiB)).equals(served.content)).toBe(true);
    }
    await expect.poll(() => served.server.connectionCount).toBe(2);
    expect(served.refused).toMatchObject([{ code: 'ERR_WORKER_LOST' }]);
    for (const client of await connectAll(served, 3)) {
      expect((await readAll(client, 8 * MiB)).equals(served.content)).toBe(true);
    }
    // It is not started again.
    expect(served.threads).toHaveLength(2);
  });

  test('says why', async () => {
    const bitmap = new Bitmap({ size: 8 * MiB, granularity: 64 * KiB });
    const served = await serveFile({ bitmap });
    bitmap.resize(16 * MiB);
    const clients = await connectAll(served, 2);
    expect((await readAll(clients[1], 8 * MiB)).equals(served.content)).toBe(true);
    expect(served.deviceErrors).toMatchObject([
      { code: 'ERR_WORKER_LOST', message: expect.stringContaining('the device has 8388608') },
    ]);
  });

  test('that dies before it has its client leaves that to the server', async () => {
    const served = await serveFile();
    const kill = (worker: Worker) => void worker.terminate();
    await connect(served.uri);
    process.once('worker', kill);
    const client = await connect(served.uri);
    expect((await readAll(client, 8 * MiB)).equals(served.content)).toBe(true);
    expect(served.deviceErrors).toMatchObject([{ code: 'ERR_WORKER_LOST' }]);
  });
});

describe('the server hears from each of its threads of', () => {
  test('requests that the device failed', async () => {
    const served = await serveFile();
    const clients = await connectAll(served, 2);
    truncateSync(served.file, MiB);
    for (const client of clients) {
      await expect(client.read(7 * MiB, Buffer.alloc(KiB))).rejects.toMatchObject({ errno: 'EIO' });
    }
    await expect.poll(() => served.deviceErrors).toHaveLength(2);
    expect(served.deviceErrors[1]).toMatchObject({ code: 'ERR_DEVICE_SHORT', offset: 7 * MiB });
  });

  const fail = () => {
    throw new Error('not the fault of a client');
  };

  test.each([
    ['throws', fail],
    ['throws later', () => sleep(1).then(fail)],
  ])('failures of the device, though a listener %s', async (_, fails) => {
    const heard: unknown[] = [];
    const onDeviceError = (error: unknown) => {
      heard.push(error);
      return fails();
    };
    const served = await serveFile({ onDeviceError });
    const clients = await connectAll(served, 2);
    truncateSync(served.file, MiB);
    for (const client of clients) {
      await expect(client.read(7 * MiB, Buffer.alloc(KiB))).rejects.toMatchObject({ errno: 'EIO' });
    }
    // It cannot begin with a file that was cut.
    clients.push(await connect(served.uri));
    await expect.poll(() => heard).toHaveLength(3);
    for (const client of clients) await client.read(0, Buffer.alloc(KiB));
  });

  test('clients that break the protocol', async () => {
    const served = await serveFile({ handshakeTimeoutMs: 600_000 });
    const [first] = await connectAll(served, 2);
    // As many as there are threads, this one included, so that one is the client of another.
    for (let i = 1; i <= 3; i++) {
      const rude = new RawClient(served.socket);
      await rude.take(18);
      rude.send(Buffer.alloc(64, 0xff));
      await rude.ended();
      await expect.poll(() => served.refused).toHaveLength(i);
    }
    expect(new Set(served.refused.map(({ code }) => code))).toEqual(new Set(['ERR_NBD_PROTOCOL']));
    expect((await readAll(first, 8 * MiB)).equals(served.content)).toBe(true);
  });

  test('clients that are too slow', async () => {
    const served = await serveFile({ handshakeTimeoutMs: 100 });
    const silent = Array.from({ length: 3 }, () => new RawClient(served.socket));
    for (const slow of silent) await slow.ended();
    await expect.poll(() => served.refused).toHaveLength(3);
    expect(new Set(served.refused.map(({ code }) => code))).toEqual(new Set(['ERR_TIMEOUT']));
  });

  test('clients beyond the limit', async () => {
    const served = await serveFile({ maxConnections: 3 });
    await connectAll(served, 3);
    await expect(connect(served.uri)).rejects.toMatchObject({ code: 'ERR_NBD_DISCONNECTED' });
    expect(served.refused).toMatchObject([{ message: 'more than 3 clients' }]);
  });
});

describe('closing', () => {
  test('answers what every thread was asked', async () => {
    const served = await serveFile({ size: 32 * MiB });
    const clients = await connectAll(served, 3);
    const reads = clients.flatMap((client) =>
      Array.from({ length: 32 }, async (_, i) => {
        const bytes = Buffer.alloc(MiB);
        await client.read(i * MiB, bytes);
        return bytes.equals(served.content.subarray(i * MiB, (i + 1) * MiB));
      }),
    );
    await Promise.race(reads);
    // Longer than this test may take: nobody has to be cut off.
    await served.server.close({ timeoutMs: 600_000 });
    const outcomes = await Promise.allSettled(reads);
    const wrong = outcomes.filter((each) => each.status === 'fulfilled' && !each.value);
    expect(wrong).toEqual([]);
    for (const each of outcomes) {
      if (each.status === 'rejected') expect(each.reason.code).toBe('ERR_NBD_DISCONNECTED');
    }
    // All that a client has sent before the server closes is answered, but a part may be on its way still.
    expect(outcomes.filter(({ status }) => status === 'fulfilled').length).toBeGreaterThan(3);
    expect(served.server.connectionCount).toBe(0);
    // What Node says of threads that are no more.
    expect(served.threads.map(({ threadId }) => threadId)).toEqual([-1, -1]);
  });

  test('waits for no thread that is only beginning, and leaves nothing open', async () => {
    const openSockets = newSockets();
    for (let round = 0; round < 5; round++) {
      const served = await serveFile({ size: MiB });
      const clients = Array.from({ length: 6 }, () => new RawClient(served.socket));
      await clients[0].take(18);
      await sleep(round * 20);
      await served.server.close();
      await Promise.all(clients.map((client) => client.ended()));
      await served.device.close();
    }
    await expect.poll(openSockets).toBe(0);
  });

  test('ends clients that do not end by themselves', async () => {
    const served = await serveFile({ size: 32 * MiB });
    const clients = await connectAll(served, 3);
    // They take no answer: what they asked is in nobody's way.
    for (const client of clients) void client.read(0, Buffer.alloc(MiB)).catch(() => {});
    await served.server.close({ timeoutMs: 100 });
    expect(served.server.connectionCount).toBe(0);
  });
});

test('closing waits for a thread that is ending because it has no clients', async () => {
  const served = await serveFile();
  const clients = await connectAll(served, 2);
  let isThere = true;
  served.threads[0].once('exit', () => {
    isThere = false;
  });
  await clients[1].close();
  await expect.poll(() => served.server.connectionCount).toBe(1);
  // The time after which it is told to end.
  await sleep(5000);
  await served.server.close();
  expect(isThere).toBe(false);
});

test('threads without clients end, and begin again for the next', async () => {
  const served = await serveFile();
  const clients = await connectAll(served, 2);
  const ended = new Promise((resolve) => served.threads[0].once('exit', resolve));
  await clients[1].close();
  await ended;
  const again = await connect(served.uri);
  expect((await readAll(again, 8 * MiB)).equals(served.content)).toBe(true);
  expect(served.threads).toHaveLength(2);
});
