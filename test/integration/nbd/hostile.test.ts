import { LacunaError } from 'lacuna/errors';
import { formatNbdUri, NbdClient, type NbdConnectOptions } from 'lacuna/nbd';
import { describe, expect, test } from 'vitest';
import { type HostileConnection, serveHostile } from '../../support/hostile-nbd.js';
import * as wire from '../../support/hostile-nbd-wire.js';
import { runCli } from '../../support/run-cli.js';

/** Far above what any of these takes, also on a busy machine. */
const LIMIT_MS = 60_000;
/** TLS: handshake_failure, fatal. */
const ALERT = Uint8Array.of(21, 3, 3, 0, 2, 2, 40);
const bytes = (length: number) => new Uint8Array(length).fill(7);

/** Fails, rather than hangs, when `work` is not settled in time. */
async function within<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('still not settled')), LIMIT_MS);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The warnings of Node meanwhile. */
async function warningsOf(work: () => Promise<void>): Promise<string[]> {
  const warnings: string[] = [];
  const note = (warning: Error) => warnings.push(warning.message);
  process.on('warning', note);
  try {
    await work();
    await new Promise(setImmediate);
    return warnings;
  } finally {
    process.off('warning', note);
  }
}

describe('a server that', () => {
  test.each<[string, string, Uint8Array]>([
    ['speaks HTTP', 'ERR_NBD_PROTOCOL', Buffer.from('HTTP/1.1 200 OK\r\n\r\n')],
    [
      'is oldstyle',
      'ERR_NBD_UNSUPPORTED',
      wire.numbers([8, 0x4e42444d41474943n], [8, 0x420281861253]),
    ],
  ])('%s is refused with %s', async (_, code, greeting) => {
    const server = await serveHostile((connection) => connection.send(greeting));
    await expect(within(NbdClient.connect({ server }))).rejects.toMatchObject({ code });
  });

  test('never greets runs into the limit', async () => {
    const server = await serveHostile(() => {});
    const connecting = NbdClient.connect({ server, connectTimeoutMs: 100 });
    await expect(within(connecting)).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      retryable: true,
    });
  });

  test('is given up by the caller while it is silent', async () => {
    const server = await serveHostile(() => {});
    const signal = AbortSignal.timeout(50);
    const connecting = NbdClient.connect({ server, signal });
    await expect(within(connecting)).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  test('drips its handshake byte by byte is understood', async () => {
    const server = await serveHostile(async (connection) => {
      for (const byte of wire.greeting()) {
        connection.send(wire.numbers([1, byte]));
        await new Promise((resolve) => setImmediate(resolve));
      }
      await connection.take(4);
      for (const refused of [11, 8]) {
        await connection.option();
        connection.send(wire.optionError(refused, 0x80000001));
      }
      await connection.option();
      connection.send(wire.exportInfo(4096, 1), wire.ack(7));
    });
    const client = await within(NbdClient.connect({ server }));
    expect(client.size).toBe(4096);
    await within(client.close());
  });

  test('answers a request with rubbish ends the connection, and says so to each', async () => {
    const server = await serveHostile(async (connection) => {
      await connection.negotiate();
      await connection.request();
      connection.send(bytes(64));
    });
    const client = await NbdClient.connect({ server });
    const work = [client.read(0, bytes(512)), client.write(512, bytes(512)), client.flush()];
    for (const result of await within(Promise.allSettled(work))) {
      expect(result).toMatchObject({ reason: { code: 'ERR_NBD_PROTOCOL', device: client.name } });
    }
    await within(client.close());
  });

  test('stops answering runs into the limit of requests', async () => {
    const server = await serveHostile((connection) => connection.negotiate());
    const client = await NbdClient.connect({ server, requestTimeoutMs: 100 });
    await expect(within(client.read(0, bytes(512)))).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    await within(client.close());
  });

  test('answers slower than the limit, but steadily, is waited for', async () => {
    const server = await serveHostile(async (connection) => {
      await connection.negotiate();
      const request = await connection.request();
      for (let part = 0; part < 8; part++) {
        await new Promise((resolve) => setTimeout(resolve, 400));
        connection.send(wire.dataChunk(request, part * 64, bytes(64), { done: part === 7 }));
      }
    });
    const client = await NbdClient.connect({ server, requestTimeoutMs: 2500 });
    const target = new Uint8Array(512);
    await within(client.read(0, target));
    expect(target).toEqual(bytes(512));
    await within(client.close());
  });

  test('stops reading does not hold a write for ever', async () => {
    const server = await serveHostile(async (connection) => {
      await connection.negotiate();
      connection.stopReading();
    });
    const client = await NbdClient.connect({ server, requestTimeoutMs: 150 });
    const signal = AbortSignal.timeout(50);
    const work = [
      client.write(0, bytes(2 ** 20)),
      client.write(0, bytes(2 ** 20), { signal }),
      client.read(0, bytes(512)),
    ];
    const [first, second, third] = await within(Promise.allSettled(work));
    expect(first).toMatchObject({ reason: { code: 'ERR_TIMEOUT', length: 2 ** 20 } });
    expect(second).toMatchObject({ reason: { code: 'ERR_ABORTED' } });
    expect(third).toMatchObject({ reason: { code: 'ERR_TIMEOUT' } });
    await within(client.close());
  });

  test('owes a reply that nobody wants any more does not hold the closing', async () => {
    const server = await serveHostile((connection) => connection.negotiate());
    const client = await NbdClient.connect({ server });
    const reading = client.read(0, bytes(512), { signal: AbortSignal.timeout(20) });
    await expect(within(reading)).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await within(client.close());
  });

  test('ignores the goodbye is left alone after a while', async () => {
    const server = await serveHostile((connection) => connection.negotiate());
    const client = await NbdClient.connect({ server });
    await within(client.close());
  });

  test('says that it is shutting down is left when it has answered, and says so to who comes later', async () => {
    let left: number | undefined;
    const server = await serveHostile(async (connection) => {
      await connection.negotiate();
      const refused = await connection.request();
      const late = await connection.request();
      connection.send(wire.errorChunk(refused, 108));
      await new Promise((resolve) => setTimeout(resolve, 50));
      connection.send(wire.dataChunk(late, late.offset, new Uint8Array(512)));
      left = (await connection.request()).command;
      connection.hangUp();
    });
    const client = await NbdClient.connect({ server });
    const reads = [client.read(0, bytes(512)), client.read(512, bytes(512))];
    await expect(within(reads[0])).rejects.toMatchObject({ errno: 'ESHUTDOWN' });
    await within(reads[1]);
    await expect.poll(() => left).toBe(2);
    const later = { code: 'ERR_NBD_DISCONNECTED', message: expect.stringMatching(/shutting down/) };
    await expect(within(client.read(0, bytes(512)))).rejects.toMatchObject(later);
    await within(client.close());
  });

  test('is slow to change a long range is waited for by the closing', async () => {
    const [gib, seen] = [2 ** 30, [] as number[]];
    const server = await serveHostile(async (connection) => {
      await connection.negotiate({ size: 16 * gib });
      for (;;) {
        const request = await connection.request();
        seen.push(request.command);
        await new Promise((resolve) => setTimeout(resolve, 20));
        connection.send(wire.doneChunk(request));
      }
    });
    const client = await NbdClient.connect({ server });
    const zeroing = client.writeZeroes(0, 10 * gib);
    await within(client.close());
    await zeroing;
    expect(seen).toEqual([6, 6, 6, 2]);
  });

  test('grants contexts that nobody asked for is believed only in what was asked', async () => {
    const server = await serveHostile(async (connection) => {
      await connection.negotiate({ contexts: ['x:y', 'base:allocation'] });
      const request = await connection.request();
      const extents = Array.from({ length: 1000 }, (_, i) => [1, i] as const);
      connection.send(
        wire.statusChunk(request, 0, extents, { done: false }),
        wire.statusChunk(request, 1, [[512, 3]]),
      );
    });
    const client = await NbdClient.connect({ server });
    const lists = await within(client.blockStatus(0, 512, ['base:allocation']));
    expect(lists.map((list) => [...list])).toEqual([[{ offset: 0, length: 512, flags: 6 }]]);
    await within(client.close());
  });

  test('names contexts to fool a terminal is shown with escapes', async () => {
    const contexts = ['base:allocation', 'x:\u001b[2J\u009b2J'];
    const server = await serveHostile(async (connection) => {
      await connection.negotiate({ contexts, size: 512 });
      for (;;) {
        const request = await connection.request();
        const ids = contexts.map((_, id) => id);
        for (const id of ids) {
          connection.send(wire.statusChunk(request, id, [[512, 0]], { done: id === ids.at(-1) }));
        }
      }
    });
    const { code, stdout } = await runCli(['info', formatNbdUri(server)]);
    expect(code).toBe(0);
    expect(stdout).toContain('base:allocation, x:\\u001b[2J\\u009b2J\n');
  });

  test('quotes in messages what could fool a terminal, which is shown with escapes', async () => {
    const twice = ['x:\u009b2J', 'x:\u009b2J'];
    const server = await serveHostile((connection) => connection.negotiate({ contexts: twice }));
    const { code, stderr } = await runCli(['info', formatNbdUri(server)]);
    expect([code, stderr]).toEqual([1, expect.stringContaining('"x:\\u009b2J" (1) was granted')]);
  });

  test('is told by flags how a request is meant', async () => {
    const seen: (readonly [number, number, number])[] = [];
    const server = await serveHostile(async (connection) => {
      await connection.negotiate({ flags: 0xffd });
      for (;;) {
        const request = await connection.request();
        seen.push([request.command, request.flags, request.length]);
        if (request.command === 0) connection.send(wire.dataChunk(request, 0, bytes(512)));
        else if (request.command === 7) connection.send(wire.statusChunk(request, 0, [[512, 0]]));
        else connection.send(wire.doneChunk(request));
      }
    });
    const client = await NbdClient.connect({ server });
    await client.read(0, bytes(512), { dontFragment: true });
    await client.blockStatus(0, 512, ['base:allocation'], { one: true });
    await client.cache(0, 1024);
    await client.trim(0, 512, { fua: true });
    expect(seen).toEqual([
      [0, 4, 512],
      [7, 8, 512],
      [5, 0, 1024],
      [4, 1, 512],
    ]);
    await within(client.close());
  });

  test('is asked for nothing where nothing is to be done, and with no range where there is none', async () => {
    const seen: (readonly number[])[] = [];
    const server = await serveHostile(async (connection) => {
      await connection.negotiate({ flags: 0xffd });
      for (;;) {
        const request = await connection.request();
        seen.push([request.command, request.offset, request.length]);
        connection.send(wire.doneChunk(request));
      }
    });
    const client = await NbdClient.connect({ server });
    await client.read(512, bytes(0));
    await client.write(512, bytes(0));
    for (const nothing of ['writeZeroes', 'trim', 'cache'] as const) await client[nothing](512, 0);
    await client.flush();
    expect(seen).toEqual([[3, 0, 0]]);
    await within(client.close());
  });

  test('has more than 2 GiB is asked and believed beyond', async () => {
    const [gib, seen] = [2 ** 30, [] as (readonly number[])[]];
    const server = await serveHostile(async (connection) => {
      await connection.negotiate({ size: 16 * gib, contexts: ['base:allocation', 'x:y'] });
      for (;;) {
        const request = await connection.request();
        seen.push([request.command, request.offset, request.length]);
        if (request.command === 7) {
          const extents = [[0x80000000, 0x80000001]] as [number, number][];
          connection.send(wire.statusChunk(request, 1, extents));
        } else if (request.command === 0) {
          connection.send(wire.dataChunk(request, request.offset, bytes(512)));
        } else connection.send(wire.doneChunk(request));
      }
    });
    const client = await NbdClient.connect({ server, contexts: ['x:y'] });
    await client.read(3 * gib, bytes(512));
    await client.writeZeroes(5 * gib, 3 * gib);
    const [list] = await client.blockStatus(2 * gib, 3 * gib, ['x:y']);
    expect([...list]).toEqual([{ offset: 2 * gib, length: 2 * gib, flags: 0x80000001 }]);
    expect(seen).toEqual([
      [0, 3 * gib, 512],
      [6, 5 * gib, 3 * gib],
      [7, 2 * gib, 3 * gib],
    ]);
    await within(client.close());
  });

  test('writes its answers before it reads the question is read meanwhile', async () => {
    // More on both ways than sockets hold: who writes first and reads later waits for ever.
    const names = Array.from({ length: 900 }, (_, i) => `x:${i}:${'y'.repeat(1000)}`);
    const server = await serveHostile(async (connection) => {
      connection.send(wire.greeting());
      await connection.take(4);
      for (let option = 0; option !== 8; ) {
        option = await connection.option();
        connection.send(option === 8 ? wire.ack(8) : wire.optionError(option, 0x80000001));
      }
      connection.stopReading();
      for (const [id, name] of names.entries()) connection.send(wire.grantContext(id, name));
      await connection.sent();
      connection.goOnReading();
      await connection.option();
      connection.send(wire.ack(10));
      await connection.option();
      connection.send(wire.exportInfo(2 ** 20, 1), wire.ack(7));
    });
    const client = await within(NbdClient.connect({ server, contexts: names }));
    expect(client.contexts).toHaveLength(900);
    await within(client.close());
  });

  test('has extended headers is told what is payload, and which contexts are wanted', async () => {
    const seen: unknown[] = [];
    const server = await serveHostile(async (connection) => {
      await connection.negotiate({
        ...{ extended: true, flags: 0x1ffd, size: 2 ** 40 },
        contexts: ['base:allocation', 'x:y'],
      });
      for (;;) {
        const request = await connection.request();
        const { command, flags, length, offset } = request;
        const isStatus = command === 7 && (flags & 32) !== 0;
        const payload = isStatus ? [...(await connection.take(length))] : [];
        seen.push([command, flags, length, payload]);
        const id = command === 7 ? payload.at(-1) : 0;
        const extents = wire.numbers([4, id ?? 0], [4, 1], [8, 512], [8, 0]);
        const { cookieHigh, cookieLow } = request;
        const body = command === 7 ? extents : new Uint8Array(0);
        const header = [
          [4, 0x6e8a278c],
          [2, 1],
          [2, command === 7 ? 6 : 0],
        ] as const;
        const cookie = [
          [4, cookieHigh],
          [4, cookieLow],
          [8, offset],
          [8, body.length],
        ] as const;
        connection.send(wire.numbers(...header, ...cookie), body);
      }
    });
    const client = await NbdClient.connect({ server, contexts: ['x:y'] });
    await client.write(0, bytes(512));
    await client.writeZeroes(0, 2 ** 40, { fua: true });
    await client.blockStatus(0, 2 ** 40, ['x:y']);
    await client.blockStatus(0, 512, ['base:allocation', 'x:y']).catch(() => {});
    expect(seen).toEqual([
      [1, 32, 512, []],
      [6, 1, 2 ** 40, []],
      [7, 32, 12, [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]],
      [7, 0, 512, []],
    ]);
    await within(client.close());
  });

  test('grants a context and never tells its extents fails that request only', async () => {
    const server = await serveHostile(async (connection) => {
      await connection.negotiate();
      connection.send(wire.doneChunk(await connection.request()));
      connection.send(wire.dataChunk(await connection.request(), 0, bytes(512)));
    });
    const client = await NbdClient.connect({ server });
    await expect(within(client.blockStatus(0, 512, ['base:allocation']))).rejects.toMatchObject({
      code: 'ERR_NBD_PROTOCOL',
      length: 512,
    });
    await within(client.read(0, bytes(512)));
    await within(client.close());
  });
});

describe('who connects', () => {
  const nobody = { type: 'unix', path: '/nobody' } as const;

  test.each<[string, NbdConnectOptions, RegExp]>([
    [
      'a path that Node would cut',
      { server: { type: 'unix', path: `/tmp/${'x'.repeat(103)}` } },
      /at most 107/,
    ],
    ['an empty path', { server: { type: 'unix', path: '' } }, /path .* is empty/],
    ['a path that ends early', { server: { type: 'unix', path: '/tmp/a\0b' } }, /path .* NUL/],
    [
      'a host that ends early',
      { server: { type: 'inet', host: 'localhost\0.example.com', port: 1 } },
      /host contains a NUL/,
    ],
    ['an impossible port', { server: { type: 'inet', host: 'localhost', port: 65536 } }, /port/],
    [
      'a limit that is no number',
      { server: nobody, connectTimeoutMs: Number.NaN },
      /connectTimeoutMs/,
    ],
    ['a limit below 0', { server: nobody, requestTimeoutMs: -1 }, /requestTimeoutMs must be/],
    ['a long name', { server: nobody, export: 'x'.repeat(4097) }, /export name is 4097 bytes/],
    ['a long context', { server: nobody, contexts: ['x'.repeat(4097)] }, /context name is 4097/],
  ])('with %s is told of the misuse', async (_, options, message) => {
    const error = await NbdClient.connect(options).catch((reason: unknown) => reason);
    expect(error).not.toBeInstanceOf(LacunaError);
    expect(error).toMatchObject({ message: expect.stringMatching(message) });
  });

  test('may wait longer than timers can count', async () => {
    const warnings = await warningsOf(async () => {
      const server = await serveHostile(async (connection) => {
        await new Promise((resolve) => setTimeout(resolve, 50));
        await connection.negotiate();
        const request = await connection.request();
        await new Promise((resolve) => setTimeout(resolve, 50));
        connection.send(wire.doneChunk(request));
      });
      const limits = { connectTimeoutMs: Number.POSITIVE_INFINITY, requestTimeoutMs: 2 ** 40 };
      const client = await within(NbdClient.connect({ server, ...limits }));
      await within(client.flush());
      await within(client.close());
    });
    expect(warnings).toEqual([]);
  });

  test('may connect many times with one signal', async () => {
    const warnings = await warningsOf(async () => {
      const server = await serveHostile((connection) => connection.negotiate());
      const { signal } = new AbortController();
      const connecting = Array.from({ length: 16 }, () => NbdClient.connect({ server, signal }));
      const clients = await within(Promise.all(connecting));
      await within(Promise.all(clients.map((client) => client.close())));
    });
    expect(warnings).toEqual([]);
  });
});

describe('a server that hangs up', () => {
  /** A whole session, as the server's messages; each is sent when its turn comes. */
  const script = [
    wire.greeting(),
    wire.optionError(11, 0x80000001),
    wire.ack(8),
    wire.concat(wire.grantContext(0, 'base:allocation'), wire.ack(10)),
    wire.concat(wire.blockSizeInfo(1, 4096, 2 ** 25), wire.exportInfo(2 ** 20, 1), wire.ack(7)),
  ];
  const total = script.reduce((sum, message) => sum + message.length, 0);
  const replies = (read: wire.ChunkCookie, status: wire.ChunkCookie) =>
    wire.concat(
      wire.statusChunk(status, 0, [[2 ** 20, 0]]),
      wire.holeChunk(read, 0, 100, { done: false }),
      wire.dataChunk(read, 100, bytes(412), { done: false }),
      wire.doneChunk(read),
    );

  async function session(server: { type: 'unix'; path: string }): Promise<void> {
    const client = await NbdClient.connect({ server });
    const results = await Promise.allSettled([
      client.read(0, bytes(512)),
      client.blockStatus(0, 2 ** 20, ['base:allocation']),
    ]);
    await client.close();
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  test('after any byte of a session is a lost connection, never a hang', async () => {
    let cut = 0;
    let length = 0;
    const server = await serveHostile(async (connection) => {
      let left = cut;
      const sendPart = (message: Uint8Array) => {
        connection.send(message.subarray(0, Math.min(left, message.length)));
        left -= message.length;
        if (left < 0) connection.hangUp();
        return left >= 0;
      };
      for (const [i, message] of script.entries()) {
        if (i === 1) await connection.take(4);
        if (i >= 1) await connection.option();
        if (!sendPart(message)) return;
      }
      const answer = replies(await connection.request(), await connection.request());
      length = total + answer.length;
      sendPart(answer);
    });
    for (;;) {
      const error = await within(
        session(server).then(
          () => undefined,
          (reason: unknown) => reason,
        ),
      );
      if (error === undefined) break;
      expect(error).toBeInstanceOf(LacunaError);
      expect(error).toMatchObject({ code: 'ERR_NBD_DISCONNECTED', retryable: true });
      cut++;
    }
    expect(cut).toBe(length);
  });
});

describe('a server that agrees to TLS and', () => {
  const tls = { type: 'psk', username: 'a', key: '00112233445566778899aabbccddeeff' } as const;
  const plain = wire.concat(wire.ack(8), wire.exportInfo(4096, 1), wire.ack(7));

  async function agree(connection: HostileConnection, behind: Uint8Array): Promise<void> {
    connection.send(wire.greeting());
    await connection.take(4);
    expect(await connection.option()).toBe(5);
    connection.send(wire.ack(5), behind);
  }

  test.each([
    ['sends more in plain with its answer', plain],
    ['sends a single byte more', plain.subarray(0, 1)],
  ])('%s broke the protocol', async (_, behind) => {
    const server = await serveHostile((connection) => agree(connection, behind));
    await expect(within(NbdClient.connect({ server, tls }))).rejects.toMatchObject({
      code: 'ERR_NBD_PROTOCOL',
      message: expect.stringContaining('in plain'),
    });
  });

  test('answers our ClientHello in plain broke the protocol', async () => {
    const server = await serveHostile(async (connection) => {
      await agree(connection, new Uint8Array(0));
      await connection.take(5);
      connection.send(plain);
    });
    await expect(within(NbdClient.connect({ server, tls }))).rejects.toMatchObject({
      code: 'ERR_NBD_PROTOCOL',
    });
  });

  test.each([
    ['hangs up', (connection: HostileConnection) => connection.hangUp()],
    ['sends an alert', (connection: HostileConnection) => connection.send(ALERT)],
  ])('then %s is told as a failure of TLS', async (_, end) => {
    const server = await serveHostile(async (connection) => {
      await agree(connection, new Uint8Array(0));
      await connection.take(5);
      end(connection);
    });
    const error = await within(NbdClient.connect({ server, tls }).catch((reason) => reason));
    expect(error).toBeInstanceOf(LacunaError);
    expect(error.message).toMatch(/TLS|secure/);
  });

  test('then is silent runs into the limit, or into the caller', async () => {
    const server = await serveHostile((connection) => agree(connection, new Uint8Array(0)));
    const connecting = NbdClient.connect({ server, tls, connectTimeoutMs: 100 });
    await expect(within(connecting)).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    const given = NbdClient.connect({ server, tls, signal: AbortSignal.timeout(50) });
    await expect(within(given)).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  test('is not even connected to with a key that is too long, and no message shows the key', async () => {
    const server = { type: 'unix', path: '/nobody' } as const;
    const long = { ...tls, key: 'ab'.repeat(513) };
    const error = await NbdClient.connect({ server, tls: long }).catch((reason) => reason);
    expect(error).toMatchObject({ code: 'ERR_NBD_TLS' });
    expect(error.message).toContain('longer than 512 bytes');
    expect(error.message).not.toMatch(/ab ?ab/);
  });
});
