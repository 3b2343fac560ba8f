/** Our server under clients that break every rule, on real sockets, beside one that keeps them. */
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LacunaError } from 'lacuna/errors';
import { NbdClient, NbdServer, type NbdServerAddress, type NbdServerOptions } from 'lacuna/nbd';
import { describe, expect, test } from 'vitest';
import { Option } from '#dist/nbd/wire/constants.js';
import { encodeContextQuery, encodeInfoQuery, encodeOption } from '#dist/nbd/wire/options.js';
import { contentOf, fakeDevice, pattern } from '../../support/fake-device.js';
import { concat, numbers } from '../../support/hostile-nbd-wire.js';
import { emptied, RawClient, serveDevice } from '../../support/nbd-server.js';
import { turns } from '../../support/turns.js';
import { request } from '../../unit/nbd/server-harness.js';

const MiB = 1024 * 1024;
const FLAGS = numbers([4, 3]);
const structured = encodeOption(Option.structuredReply);
const contexts = encodeOption(Option.setMetaContext, encodeContextQuery('', ['base:allocation']));
const go = encodeOption(Option.go, encodeInfoQuery('', []));
const SESSION = concat(
  FLAGS,
  structured,
  contexts,
  go,
  request(1, { cookie: 1, offset: 4096, payload: pattern(600) }),
  request(0, { cookie: 2, offset: 4096, length: 600 }),
  request(7, { cookie: 3, length: 4096 }),
  request(6, { cookie: 4, length: 4096 }),
  request(3, { cookie: 5 }),
);

/** A server, what it says of clients that it hung up on, and a well-behaved client that must not notice. */
async function serve(options: Partial<NbdServerOptions> = {}) {
  const refused: LacunaError[] = [];
  const device = fakeDevice(64 * MiB);
  const onRefused = (error: LacunaError) => refused.push(error);
  const { server, path } = await serveDevice(device, { ...options, onRefused });
  const witness = await NbdClient.connect({ server: { type: 'unix', path } });
  const unharmed = async () => {
    await witness.write(MiB, pattern(1000));
    const target = new Uint8Array(1000);
    await witness.read(MiB, target);
    expect(target).toEqual(pattern(1000));
  };
  /** Only the witness is left. */
  const alone = async () => {
    await expect.poll(() => server.connectionCount).toBe(1);
    await unharmed();
    await witness.close();
  };
  return { server, path, device, refused, unharmed, alone };
}

async function entered(path: string): Promise<RawClient> {
  const client = new RawClient(path);
  client.send(FLAGS, structured, go);
  await client.take(18 + 20 + 20 + 12 + 20 + 14 + 20);
  return client;
}

describe('a server in the handshake', () => {
  test.each([
    ['with a wrong magic number', concat(FLAGS, Buffer.from('GET / HTTP/1.1\r\n\r\n'))],
    ['with unknown client flags', numbers([4, 0xffff])],
    [
      'with an option of 4 GiB',
      concat(FLAGS, encodeOption(7).subarray(0, 12), numbers([4, 2 ** 32 - 1])),
    ],
    [
      'that asks for a missing export by EXPORT_NAME',
      concat(FLAGS, encodeOption(1, Buffer.from('x'))),
    ],
  ])('hangs up at once on a client %s', async (_, bytes) => {
    const { path, refused, alone } = await serve();
    const client = new RawClient(path);
    client.send(bytes);
    await client.ended();
    expect(refused.map(({ code }) => code)).toEqual(['ERR_NBD_PROTOCOL']);
    await alone();
  });

  test('hangs up in time on a client that says nothing, and on one that says a byte now and then', async () => {
    const { path, refused, alone, unharmed } = await serve({ handshakeTimeoutMs: 2000 });
    const [silent, slow] = [new RawClient(path), new RawClient(path)];
    // Twenty bytes, for which it would need twice as long as it has, or longer on a busy machine.
    for (const byte of concat(FLAGS, encodeOption(Option.list))) {
      if (slow.closed) break;
      slow.send(Uint8Array.of(byte));
      await sleep(200);
    }
    await Promise.all([silent.ended(), slow.ended(), unharmed()]);
    expect(refused.map(({ code }) => code)).toEqual(['ERR_TIMEOUT', 'ERR_TIMEOUT']);
    await alone();
  });

  test('takes bounded memory for a flood of options whose answers nobody takes', async () => {
    const device = fakeDevice(MiB);
    const description = 'd'.repeat(4096);
    const exports = Array.from({ length: 100 }, (_, i) => ({ name: `${i}`, description, device }));
    const { server, path } = await serveDevice(device, { exports, name: '0' });
    const client = new RawClient(path);
    client.socket.pause();
    const before = process.memoryUsage().arrayBuffers;
    const list = encodeOption(Option.list);
    // 400 KiB of answers to each.
    client.send(FLAGS, ...Array.from({ length: 1000 }, () => list));
    await turns(2000);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(32 * MiB);
    expect(server.connectionCount).toBe(1);
    client.socket.destroy();
    await emptied(server);
  });

  test('keeps the newest of many silent clients, and all clients that have entered an export', async () => {
    const { server, path, refused, unharmed, alone } = await serve({
      maxConnections: 5,
      handshakeTimeoutMs: 600_000,
    });
    const sockets: Socket[] = [];
    // In batches that the system's queue of connections can hold.
    for (let batch = 1; batch <= 20; batch++) {
      for (let i = 0; i < 100; i++) {
        const socket = createConnection({ path });
        socket.on('error', () => {});
        sockets.push(socket);
      }
      await expect.poll(() => refused.length).toBe((batch - 1) * 100);
      expect(server.connectionCount).toBeLessThanOrEqual(101);
    }
    await unharmed();
    const late = await entered(path);
    await unharmed();
    for (const socket of sockets) socket.destroy();
    late.socket.destroy();
    await alone();
  });

  test('hangs up on clients beyond the limit before they enter an export', async () => {
    const { server, path, refused, unharmed, alone } = await serve({ maxConnections: 3 });
    const waiting = new RawClient(path);
    await waiting.take(18);
    const inside = [await entered(path), await entered(path)];
    // Its place was taken while it was in the handshake.
    waiting.send(FLAGS, go);
    await waiting.ended();
    expect(waiting.received).toHaveLength(0);
    const late = new RawClient(path);
    await late.ended();
    expect(refused.map(({ message }) => message)).toEqual(Array(2).fill('more than 3 clients'));
    expect(server.connectionCount).toBe(3);
    await unharmed();
    for (const { socket } of inside) socket.destroy();
    await alone();
  });
});

describe('a server in the transmission', () => {
  test.each([
    ['send the beginning of long writes', 1],
    ['ask long reads and take nothing', 0],
  ])('has one budget of memory for all clients that %s', async (_, command) => {
    const maxMemory = 64 * MiB;
    const device = fakeDevice(64 * MiB, { write: async () => {} });
    const { server, path } = await serveDevice(device, { maxMemory });
    const length = 32 * MiB;
    const header = request(command, { length });
    const beginning = Buffer.alloc(length - 1);
    await contentOf(device);
    const before = process.memoryUsage().arrayBuffers;
    const clients: RawClient[] = [];
    for (let i = 0; i < 30; i++) {
      const client = await entered(path);
      client.socket.pause();
      client.socket.write(header);
      if (command === 1) {
        // Not copied: what is counted is the server's.
        await new Promise((sent) => client.socket.write(beginning, sent));
      }
      clients.push(client);
    }
    const witness = await NbdClient.connect({ server: { type: 'unix', path } });
    const target = new Uint8Array(length);
    await witness.write(MiB, target);
    await witness.read(MiB, target);
    // 960 MiB without a budget; its idle buffers are the server's own.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(maxMemory + 128 * MiB);
    for (const { socket } of clients) socket.destroy();
    await witness.close();
    await emptied(server);
  });

  test('goes on where a session ends, at whatever byte', async () => {
    const { path, alone, unharmed } = await serve();
    for (let length = 0; length <= SESSION.length; length += length < 250 ? 1 : 17) {
      const client = new RawClient(path);
      client.send(SESSION.subarray(0, length));
      if (length % 2 === 0) client.socket.end();
      else setTimeout(() => client.socket.destroy(), 1);
      if (length % 2 === 0) await client.ended();
      if (length % 100 === 0) await unharmed();
    }
    await alone();
  });

  test('still answers a client that has closed its side of the connection', async () => {
    let finished: Promise<unknown> | undefined;
    // Answered when the server has seen the end of what the client says.
    const read = async () => {
      await finished;
      await turns(20);
    };
    const { path } = await serveDevice(fakeDevice(MiB, { read, extents: undefined }));
    const client = await entered(path);
    finished = once(client.socket, 'finish');
    client.send(request(0, { cookie: 2, length: 100 }));
    client.socket.end();
    expect(await client.take(28 + 100)).toHaveLength(128);
    await client.ended();
  });

  test.each([
    ['with a wrong magic number', new Uint8Array(28)],
    ['with a payload of 4 GiB', request(1, { length: 2 ** 32 - 1 })],
  ])('hangs up at once on a client %s', async (_, bytes) => {
    const { path, refused, alone } = await serve();
    const client = await entered(path);
    client.send(bytes);
    await client.ended();
    expect(refused.map(({ code }) => code)).toEqual(['ERR_NBD_PROTOCOL']);
    await alone();
  });

  test('takes bounded memory for clients that ask and take no answers, and serves the others', async () => {
    const { path, device, unharmed, alone } = await serve();
    await device.write(0, pattern(32 * MiB));
    const before = process.memoryUsage().arrayBuffers;
    const clients = await Promise.all(Array.from({ length: 4 }, () => entered(path)));
    for (const client of clients) {
      client.socket.pause();
      client.send(
        ...Array.from({ length: 5000 }, (_, cookie) => request(0, { cookie, length: MiB })),
      );
    }
    await turns(500);
    await unharmed();
    // Four times 16 MiB, the pool's own 32 MiB, and room for the collector.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(160 * MiB);
    for (const client of clients) client.socket.destroy();
    await alone();
  });

  test('serves the others where a client announces a payload and never sends it', async () => {
    const { path, unharmed, alone, server } = await serve();
    const client = await entered(path);
    client.send(request(1, { length: 32 * MiB }), new Uint8Array(1000));
    await turns(20);
    await unharmed();
    expect(server.connectionCount).toBe(2);
    client.socket.destroy();
    await alone();
  });

  test('answers a flush while a read of the device takes long', async () => {
    const { path } = await serveDevice(
      fakeDevice(MiB, { read: () => new Promise(() => {}), extents: undefined }),
    );
    const client = await entered(path);
    client.send(request(0, { cookie: 1, length: 10 }), request(3, { cookie: 2 }));
    const flushed = Buffer.from(await client.take(16));
    expect(flushed.readUInt32BE(12)).toBe(2);
    client.socket.destroy();
  });
});

describe('closing a server', () => {
  test('answers what is in flight, then hangs up', async () => {
    let finish: (() => void) | undefined;
    const read = () => new Promise<void>((resolve) => (finish = resolve));
    const { server, path } = await serveDevice(fakeDevice(MiB, { read, extents: undefined }));
    const [client, greeted] = [await entered(path), new RawClient(path)];
    await greeted.take(18);
    client.send(request(0, { cookie: 1, length: 100 }));
    await expect.poll(() => finish).toBeDefined();
    const closed = server.close();
    await greeted.ended();
    await expect(NbdClient.connect({ server: { type: 'unix', path } })).rejects.toThrow();
    finish?.();
    expect(await client.take(128)).toHaveLength(128);
    await client.ended();
    await closed;
    expect(server.connectionCount).toBe(0);
  });

  test('does not wait longer than it was told', async () => {
    let isAsked = false;
    const read = () => new Promise<void>(() => (isAsked = true));
    const { server, path } = await serveDevice(fakeDevice(MiB, { read, extents: undefined }));
    const client = await entered(path);
    client.send(request(0, { cookie: 1, length: 100 }));
    await expect.poll(() => isAsked).toBe(true);
    // The device never answers: without the limit this would hang.
    await server.close({ timeoutMs: 200 });
    await client.ended();
  });

  test.each<NbdServerAddress>([
    { type: 'unix', path: join(tmpdir(), `lacuna-never-${process.pid}`) },
    { type: 'inet', host: 'localhost', port: 0 },
  ])('ends a server that is about to listen: $type', async (address) => {
    const server = new NbdServer({ exports: [{ name: '', device: fakeDevice(MiB) }] });
    const listening = server.listen(address);
    const refused = expect(listening).rejects.toThrow('the server was closed');
    await server.close();
    await refused;
    const active = (kind: RegExp) =>
      process.getActiveResourcesInfo().filter((each) => kind.test(each));
    // A name that is still looked up could be listened at afterwards.
    await expect.poll(() => active(/GetAddrInfo/)).toEqual([]);
    await turns(20);
    expect([server.address, active(/server/i)]).toEqual([undefined, []]);
  });
});

test.each<Partial<NbdServerOptions>>([
  { maxConnections: 0 },
  { maxConnections: Number.NaN },
  { handshakeTimeoutMs: Number.POSITIVE_INFINITY },
  { handshakeTimeoutMs: Number.NaN },
  { idleTimeoutMs: -1 },
  { idleTimeoutMs: 2 ** 31 },
])('an impossible limit of a server is misuse: %o', async (limit) => {
  const exports = [{ name: '', device: fakeDevice(MiB) }];
  expect(() => new NbdServer({ exports, ...limit })).toThrow(RangeError);
  await expect(new NbdServer({ exports }).close({ timeoutMs: 2 ** 31 })).rejects.toThrow(
    RangeError,
  );
});

test('an impossible address is misuse, and nothing listens at a part of it', async () => {
  const device = fakeDevice(MiB);
  const path = join(tmpdir(), 'x'.repeat(120));
  const server = new NbdServer({ exports: [{ name: '', device }] });
  await expect(server.listen({ type: 'unix', path })).rejects.toThrow(/at most 107 bytes/);
  await expect(server.listen({ type: 'unix', path: '' })).rejects.toThrow(TypeError);
  const cut = `${join(tmpdir(), 'lacuna-nul')}\0b`;
  await expect(server.listen({ type: 'unix', path: cut })).rejects.toThrow(/NUL/);
  const host = '127.0.0.1\0.example.com';
  await expect(server.listen({ type: 'inet', host, port: 0 })).rejects.toThrow(/NUL/);
  const none = { type: 'inet', port: 0 } as NbdServerAddress;
  await expect(server.listen(none)).rejects.toThrow('listen needs a host');
  await expect(server.listen({ type: 'inet', host: '127.0.0.1', port: -1 })).rejects.toThrow(
    /port/,
  );
  await server.close();
});

describe('plain text around STARTTLS', () => {
  const tls = { type: 'psk', username: 'a', key: '00ff' } as const;

  test.each([
    ['in the same packet', true],
    ['behind the acknowledgement', false],
  ])('options sent %s are never answered', async (_, together) => {
    const refused: LacunaError[] = [];
    const device = fakeDevice(MiB);
    const onRefused = (error: LacunaError) => refused.push(error);
    const { server, path } = await serveDevice(device, {
      tls,
      onRefused,
      handshakeTimeoutMs: 60_000,
    });
    const client = new RawClient(path);
    client.send(FLAGS, encodeOption(Option.startTls), together ? go : new Uint8Array(0));
    await client.take(18 + 20);
    if (!together) client.send(go);
    client.send(new Uint8Array(100));
    await client.ended();
    // A TLS alert at most; nothing of NBD.
    expect(client.received.length).toBeLessThan(10);
    await emptied(server);
  });

  test('a client that starts TLS and then says nothing is hung up on in time', async () => {
    const { path } = await serveDevice(fakeDevice(MiB), { tls, handshakeTimeoutMs: 2000 });
    const client = new RawClient(path);
    client.send(FLAGS, encodeOption(Option.startTls));
    await client.take(18 + 20);
    await client.ended();
  });
});
