import { once } from 'node:events';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { NbdClient, type NbdReconnectOptions, ReconnectingClient } from 'lacuna/nbd';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { openDevice } from '#dist/block/index.js';
import { makePskFile } from '../../support/certificates.js';
import { serveHostile } from '../../support/hostile-nbd.js';
import * as wire from '../../support/hostile-nbd-wire.js';
import { type Peer, usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';
import { turns } from '../../support/turns.js';

const MIB = 2 ** 20;
const peers = usePeers();

function connect(
  peer: Pick<Peer, 'server'>,
  options: Partial<NbdReconnectOptions> = {},
): Promise<ReconnectingClient> {
  return ReconnectingClient.connect({ server: peer.server, reconnectDelayMs: 120_000, ...options });
}

/** nbdkit's pattern: every eight bytes hold their own offset. */
function expectPattern(bytes: Uint8Array, offset: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + 8 <= bytes.length; at += 8) {
    const found = Number(view.getBigUint64(at));
    if (found !== offset + at) throw new Error(`${found} at offset ${offset + at}`);
  }
}

/** `work` whenever it is called, but never twice at once. */
function inTurn(work: () => Promise<void>): () => Promise<void> {
  let last = Promise.resolve();
  return () => {
    last = last.then(work);
    return last;
  };
}

/** A way to a server that holds its answers back once so many bytes have come through. */
async function holdBack(server: string) {
  const path = `${await peers.folder()}/way`;
  const pairs = new Set<readonly [Socket, Socket]>();
  let left = 0;
  const forward = (from: Socket, to: Socket) => {
    if (left <= 0) return;
    for (let bytes = from.read(); bytes !== null; bytes = left > 0 ? from.read() : null) {
      left -= bytes.length;
      to.write(bytes);
    }
  };
  const way = createServer((client) => {
    const up = createConnection({ path: server });
    const pair = [client, up] as const;
    pairs.add(pair);
    client.pipe(up);
    up.on('readable', () => forward(up, client));
    for (const end of pair) {
      end.on('error', () => {});
      end.on('close', () => {
        pairs.delete(pair);
        for (const each of pair) each.destroy();
      });
    }
  });
  way.listen(path);
  await once(way, 'listening');
  onTestFinished(() => void way.close());
  return {
    path,
    letThrough(bytes: number) {
      left = bytes;
      for (const [client, up] of pairs) forward(up, client);
    },
    isHolding: () => left <= 0 && [...pairs].some(([, up]) => up.readableLength > 0),
    /** Ends all connections, as the end of the server does. */
    cut() {
      for (const [, up] of pairs) up.destroy();
    },
  };
}

describe('a server that is killed and comes back', () => {
  test.each([
    ['in plain', false],
    ['over TLS', true],
  ])('costs a reader nothing, %s', async (_, secure) => {
    const psk = secure ? await makePskFile(`${await peers.folder()}/psk`, 'alice') : '';
    const tls = secure ? ({ type: 'psk', 'psk-file': psk } as const) : undefined;
    const options = secure ? ['--tls=require', `--tls-psk=${psk}`] : [];
    const args = [...options, '-t', '16', '--filter=delay', 'pattern', '256M', 'rdelay=2ms'];
    let peer = await peers.nbdkit(args);
    const client = await connect(peer, { tls });
    let next = 0;
    let kills = 0;
    const restart = async () => {
      await peer.stop('SIGKILL');
      await sleep(kills * 150);
      peer = await peers.nbdkit(args, peer);
      kills++;
    };
    const restarts = inTurn(restart);
    const reader = async () => {
      const target = new Uint8Array(256 * 1024);
      while (next < 256 * MIB) {
        const offset = next;
        next += target.length;
        const reading = client.read(offset, target.fill(0xee));
        const kill = [50, 128, 200].some((at) => at * MIB === offset) && restarts();
        await Promise.all([reading, kill]);
        expectPattern(target, offset);
      }
    };
    await Promise.all(Array.from({ length: 8 }, reader));
    expect(kills).toBe(3);
    expect(client.pending).toBe(0);
    await client.close();
  });

  test('gets writes again that it had not acknowledged, and is compared at the end', async () => {
    const file = `${await peers.folder()}/disk`;
    await writeFile(file, '');
    await truncate(file, 32 * MIB);
    const args = ['-t', '8', '--filter=delay', 'file', file, 'wdelay=5ms'];
    let peer = await peers.nbdkit(args);
    const client = await connect(peer);
    const block = (i: number) => new Uint8Array(65536).fill(1 + (i % 250));
    const restart = inTurn(async () => {
      await peer.stop('SIGKILL');
      peer = await peers.nbdkit(args, peer);
    });
    let next = 0;
    const writer = async () => {
      while (next < 512) {
        const i = next++;
        const writing = client.write(i * 65536, block(i), { fua: true });
        await Promise.all([writing, (i === 100 || i === 300) && restart()]);
      }
    };
    await Promise.all(Array.from({ length: 8 }, writer));
    await client.flush();
    for (let i = 0; i < 512; i++) {
      const target = new Uint8Array(65536);
      await client.read(i * 65536, target);
      expect(Buffer.compare(target, block(i))).toBe(0);
    }
    await client.close();
  });

  test('costs a copy of a whole disk nothing', async () => {
    const args = ['-t', '16', 'pattern', '256M'];
    let peer = await peers.nbdkit(args);
    const way = await holdBack(peer.server.path);
    const target = `${await peers.folder()}/copy.raw`;
    const keys = 'reconnect-delay=120,open-timeout=120';
    const source = `driver=nbd,server.type=unix,server.path=${way.path},${keys}`;
    const copying = runCli(['copy', '--threads', '2', source, target]);
    for (const share of [50 * MIB, 100 * MIB, Number.POSITIVE_INFINITY]) {
      way.letThrough(share);
      if (share > 256 * MIB) break;
      await expect.poll(() => way.isHolding()).toBe(true);
      await peer.stop('SIGKILL');
      way.cut();
      peer = await peers.nbdkit(args, peer);
    }
    const { code, stderr } = await copying;
    expect([code, stderr]).toEqual([0, '']);
    expectPattern(await readFile(target), 0);
  });

  test('does not get a flush for writes that it may have forgotten', async () => {
    const args = ['memory', '1M'];
    let peer = await peers.nbdkit(args);
    const client = await connect(peer);
    await client.write(0, new Uint8Array(512).fill(1));
    await client.flush();
    await peer.stop('SIGKILL');
    peer = await peers.nbdkit(args, peer);
    await client.flush();
    await client.write(0, new Uint8Array(512).fill(2));
    await peer.stop('SIGKILL');
    peer = await peers.nbdkit(args, peer);
    await expect(client.flush()).rejects.toMatchObject({
      code: 'ERR_NBD_UNFLUSHED',
      retryable: false,
      device: client.name,
    });
    await client.write(0, new Uint8Array(512).fill(2));
    await expect(client.flush()).rejects.toMatchObject({ code: 'ERR_NBD_UNFLUSHED' });
    await client.close();
  });

  test.each([
    ['size', ['pattern', '2M'], 'size was 1048576 and is 2097152'],
    ['abilities', ['--filter=nozero', 'memory', '1M'], 'flags was'],
    [
      'block sizes',
      ['--filter=blocksize-policy', 'memory', '1M', 'blocksize-minimum=4096'],
      'minimum block was 512 and is 4096',
    ],
    ['structured replies', ['--no-sr', 'memory', '1M'], 'structured replies was true'],
  ])('whose %s changed is refused', async (_, args, words) => {
    const peer = await peers.nbdkit(['memory', '1M']);
    const client = await connect(peer);
    await peer.stop('SIGKILL');
    await peers.nbdkit(args, peer);
    for (let i = 0; i < 2; i++) {
      await expect(client.read(0, new Uint8Array(512))).rejects.toMatchObject({
        code: 'ERR_DEVICE_OPEN',
        retryable: false,
        message: expect.stringContaining(words),
      });
    }
    await client.close();
  });
});

describe('a server that does not come back', () => {
  test('fails what waits when the time has passed, and all that comes later at once', async () => {
    const peer = await peers.nbdkit(['--filter=delay', 'memory', '1M', 'rdelay=60']);
    const client = await connect(peer, { reconnectDelayMs: 400 });
    const reads = [0, 512].map((offset) => client.read(offset, new Uint8Array(512)));
    const results = Promise.allSettled(reads);
    await expect.poll(() => client.pending).toBe(2);
    await peer.stop('SIGKILL');
    for (const result of await results) {
      expect(result).toMatchObject({
        reason: {
          code: 'ERR_NBD_DISCONNECTED',
          message: expect.stringMatching(/within 0\.4 s .*is the server running/),
        },
      });
    }
    // Before any timer can have run.
    let code: string | undefined;
    void client.flush().catch((error) => {
      code = error.code;
    });
    await new Promise(setImmediate);
    expect(code).toBe('ERR_NBD_DISCONNECTED');
    await client.close();
  });

  test('does not hold a caller who gives up, nor one who closes', async () => {
    const peer = await peers.nbdkit(['memory', '1M']);
    const client = await connect(peer);
    await peer.stop('SIGKILL');
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => warnings.push(warning);
    process.on('warning', onWarning);
    const controller = new AbortController();
    const given = Array.from({ length: 40 }, () =>
      client.read(0, new Uint8Array(512), controller).catch((error) => error.code),
    );
    const kept = client.read(0, new Uint8Array(512)).catch((error) => error.code);
    await expect.poll(() => client.pending).toBe(41);
    controller.abort();
    expect(new Set(await Promise.all(given))).toEqual(new Set(['ERR_ABORTED']));
    expect(client.pending).toBe(1);
    await client.close();
    expect(await kept).toBe('ERR_DEVICE_CLOSED');
    await expect(client.flush()).rejects.toMatchObject({ code: 'ERR_DEVICE_CLOSED' });
    process.off('warning', onWarning);
    expect(warnings).toEqual([]);
  });
});

test('a request that costs the connection every time is given up in the end', async () => {
  const server = await serveHostile(async (connection) => {
    await connection.negotiate();
    await connection.request();
    connection.hangUp();
  });
  const client = await connect({ server });
  await expect(client.read(0, new Uint8Array(512))).rejects.toMatchObject({
    code: 'ERR_NBD_DISCONNECTED',
  });
  await client.close();
});

test('a server that breaks the protocol is not connected to again', async () => {
  let connections = 0;
  const server = await serveHostile(async (connection) => {
    connections++;
    await connection.negotiate();
    await connection.request();
    connection.send(new Uint8Array(64).fill(7));
  });
  const client = await connect({ server });
  const error = { code: 'ERR_NBD_PROTOCOL' };
  await expect(client.read(0, new Uint8Array(512))).rejects.toMatchObject(error);
  await expect(client.read(0, new Uint8Array(512))).rejects.toMatchObject(error);
  expect(connections).toBe(1);
  await client.close();
});

test('a server that says it shuts down is left for the next one, and what it answers counts', async () => {
  const server = await serveHostile(async (connection, index) => {
    await connection.negotiate();
    for (let count = 0; ; count++) {
      const request = await connection.request();
      const refused = index === 0 && count === 1;
      if (refused) connection.send(wire.errorChunk(request, 108));
      else connection.send(wire.dataChunk(request, 0, new Uint8Array(512).fill(index + 1)));
    }
  });
  const client = await connect({ server });
  const target = new Uint8Array(512);
  await client.read(0, target);
  expect(target[0]).toBe(1);
  await client.read(0, target);
  expect(target[0]).toBe(2);
  await client.close();
});

test('a write that is acknowledged by a server that was left already is in doubt too', async () => {
  let leave: (() => void) | undefined;
  const left = new Promise<void>((resolve) => (leave = resolve));
  const server = await serveHostile(async (connection, index) => {
    await connection.negotiate();
    if (index > 0) leave?.();
    if (index === 0) {
      const write = await connection.request();
      const read = await connection.request();
      connection.send(wire.errorChunk(read, 108));
      await left;
      connection.send(wire.doneChunk(write));
    }
    for (;;) connection.send(wire.doneChunk(await connection.request()));
  });
  const client = await connect({ server });
  const writing = client.write(0, new Uint8Array(512));
  const reading = client.read(0, new Uint8Array(512));
  reading.catch(() => {});
  await writing;
  await expect(client.flush()).rejects.toMatchObject({ code: 'ERR_NBD_UNFLUSHED' });
  await client.close();
});

test('closing waits also for the answers of a server that was left', async () => {
  let answer: (() => void) | undefined;
  const isClosing = new Promise<void>((resolve) => (answer = resolve));
  const server = await serveHostile(async (connection, index) => {
    await connection.negotiate();
    if (index === 0) {
      const refused = await connection.request();
      const late = await connection.request();
      connection.send(wire.errorChunk(refused, 108));
      await isClosing;
      connection.send(wire.dataChunk(late, late.offset, new Uint8Array(512)));
    }
    for (;;) {
      const request = await connection.request();
      connection.send(wire.dataChunk(request, request.offset, new Uint8Array(512)));
    }
  });
  const client = await connect({ server });
  const reading = client.read(0, new Uint8Array(512));
  let isLent = true;
  const late = client.read(512, new Uint8Array(512)).finally(() => {
    isLent = false;
  });
  await reading;
  const closing = client.close().then(() => isLent);
  await turns(50);
  answer?.();
  expect(await closing).toBe(false);
  await late;
});

test('a connection that is made in the moment of closing is closed too', async () => {
  let open = 0;
  const server = await serveHostile(async (connection, index) => {
    await connection.negotiate();
    open++;
    try {
      while (index > 0) connection.send(wire.doneChunk(await connection.request()));
      await connection.request();
    } finally {
      open--;
      connection.hangUp();
    }
  });
  const client = await connect({ server });
  const original = NbdClient.connect;
  const connecting = vi.spyOn(NbdClient, 'connect').mockImplementation(async (options) => {
    const made = await original.call(NbdClient, options);
    void client.close();
    return made;
  });
  onTestFinished(() => connecting.mockRestore());
  const writing = client.write(0, new Uint8Array(512));
  await expect(writing).rejects.toMatchObject({ code: 'ERR_DEVICE_CLOSED' });
  await client.close();
  await expect.poll(() => open).toBe(0);
});

describe('opening', () => {
  test('waits for a server that is not there yet', async () => {
    const peer = await peers.nbdkit(['pattern', '1M']);
    await peer.stop('SIGKILL');
    const connecting = vi.spyOn(NbdClient, 'connect');
    onTestFinished(() => connecting.mockRestore());
    const description = { driver: 'nbd' as const, server: peer.server, 'open-timeout': 120 };
    const opening = openDevice(description);
    await expect.poll(() => connecting.mock.calls.length).toBeGreaterThan(1);
    await peers.nbdkit(['pattern', '1M'], peer);
    await using device = await opening;
    expect(device.size).toBe(MIB);
  });

  test('ends when the time has passed, or the caller gives up', async () => {
    const server = { type: 'unix' as const, path: `${await peers.folder()}/nobody` };
    const failed = openDevice({ driver: 'nbd', server, 'open-timeout': 0.2 });
    await expect(failed).rejects.toMatchObject({ code: 'ERR_NBD_DISCONNECTED', errno: 'ENOENT' });
    const signal = AbortSignal.timeout(50);
    const given = openDevice({ driver: 'nbd', server, 'open-timeout': 60 }, { signal });
    await expect(given).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  test.each([{ reconnectDelayMs: Number.NaN }, { openTimeoutMs: -1 }])(
    'with an impossible limit is misuse: %o',
    async (limits) => {
      const { server } = await peers.nbdkit(['pattern', '1M']);
      const options = { server, reconnectDelayMs: 1000, ...limits };
      await expect(ReconnectingClient.connect(options)).rejects.toThrow(RangeError);
    },
  );

  test('reads reconnect-delay and open-timeout as texts, and refuses what is no number of seconds', async () => {
    const peer = await peers.nbdkit(['pattern', '1M']);
    const text = `driver=nbd,server.type=unix,server.path=${peer.server.path}`;
    await using device = await openDevice(`${text},reconnect-delay=5,open-timeout=90.5`);
    expect(device.description).toMatchObject({ 'reconnect-delay': 5, 'open-timeout': 90.5 });
    await expect(openDevice(`${text},reconnect-delay=soon`)).rejects.toThrow('number of seconds');
  });

  test('keeps to connect-timeout, and then to request-timeout, where a server is silent', async () => {
    const server = createServer(() => {}).listen(0, '127.0.0.1');
    onTestFinished(() => void server.close());
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const text = `driver=nbd,server.type=inet,server.host=127.0.0.1,server.port=${port}`;
    const mute = openDevice(`${text},connect-timeout=0.1`);
    await expect(mute).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    await expect(openDevice(`${text},connect-timeout=3e6`)).rejects.toThrow('number of seconds');
    await expect(openDevice(`${text},connect-timeout=3000000`)).rejects.toThrow('at most');

    const slow = await peers.nbdkit(['--filter=delay', 'pattern', '1M', 'rdelay=30']);
    const path = slow.server.path;
    const described = `driver=nbd,server.type=unix,server.path=${path},request-timeout=0.1`;
    const device = await openDevice(described);
    const read = device.read(0, Buffer.alloc(4096));
    await expect(read).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    await device.close();
  });
});
