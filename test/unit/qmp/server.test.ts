import { once } from 'node:events';
import { stat, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LacunaError } from 'lacuna/errors';
import {
  Monitor,
  type QmpCommand,
  QmpCommandError,
  QmpServer,
  type QmpServerLimits,
} from 'lacuna/qmp';
import { describe, expect, onTestFinished, test } from 'vitest';
import { temporaryFolder } from '../../support/temporary-folder.js';

const FOLDER = temporaryFolder();
let sockets = 0;

const version = { major: 10, minor: 0, micro: 3, package: 'of a test' };

const COMMANDS: Record<string, QmpCommand> = {
  'query-echo': (args) => args,
  'query-late': async () => {
    await sleep(20);
    return { late: true };
  },
  refuse: () => {
    throw new QmpCommandError('DeviceNotFound', "Device 'x' not found");
  },
  fail: () => {
    throw new RangeError('it is too large');
  },
  nothing: () => undefined,
  'query-much': () => 'x'.repeat(200_000),
};

interface Started {
  readonly server: QmpServer;
  readonly path: string;
  readonly refused: LacunaError[];
}

async function started(limits: QmpServerLimits = {}, commands = COMMANDS): Promise<Started> {
  const path = join(FOLDER, `qmp-${sockets++}`);
  const refused: LacunaError[] = [];
  const server = new QmpServer({
    commands,
    version,
    limits,
    onRefused: (error) => refused.push(error),
  });
  await server.listen({ path });
  onTestFinished(() => server.close({ timeoutMs: 0 }));
  return { server, path, refused };
}

/** A client that sends whatever it likes. */
class Client {
  readonly socket: Socket;
  text = '';

  static async connect(path: string): Promise<Client> {
    const client = new Client(connect({ path }));
    await once(client.socket, 'connect');
    onTestFinished(() => void client.socket.destroy());
    await client.lines(1);
    return client;
  }

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (piece) => {
      this.text += piece;
    });
    socket.on('error', () => {});
  }

  send(text: string | Uint8Array): void {
    this.socket.write(text);
  }

  /** Waits until so many lines have come in all. */
  async lines(count: number): Promise<Record<string, never>[]> {
    while (this.text.split('\r\n').length <= count) await once(this.socket, 'data');
    return this.text
      .split('\r\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line));
  }

  /** The answers to texts that are sent together, behind the agreement. */
  async answers(...texts: (string | Uint8Array)[]): Promise<Record<string, never>[]> {
    this.send('{"execute":"qmp_capabilities"}\n');
    for (const text of texts) this.send(text);
    return (await this.lines(2 + texts.length)).slice(2);
  }
}

const refusal = (desc: string, errorClass = 'GenericError') => ({
  error: { class: errorClass, desc },
});

describe('a QMP server', () => {
  test('speaks with our own client', async () => {
    const { path } = await started();
    await using monitor = await Monitor.connect({ path });
    expect(monitor.version).toEqual(version);
    expect(monitor.capabilities).toEqual([]);
    expect(await monitor.execute('query-echo', { a: [1, { b: null }] })).toEqual({
      a: [1, { b: null }],
    });
    expect(await monitor.execute('nothing')).toEqual({});
    await expect(monitor.execute('refuse')).rejects.toMatchObject({
      code: 'ERR_QMP_COMMAND',
      errno: 'DeviceNotFound',
      description: "Device 'x' not found",
    });
  });

  test('gives a client its id back, whatever it is, and answers in order', async () => {
    const client = await Client.connect((await started()).path);
    const sent = [1, 'a', null, [{}], { __proto__: 1 }].map((id) => ({ execute: 'nothing', id }));
    const late = { execute: 'query-late', id: 'first' };
    const texts = [late, ...sent].map((one) => JSON.stringify(one));
    expect(await client.answers(...texts)).toEqual([
      { return: { late: true }, id: 'first' },
      ...sent.map(({ id }) => ({ return: {}, id })),
    ]);
  });

  test.each([
    ['{"execute":"nope"}', 'The command nope has not been found', 'CommandNotFound'],
    [
      '{"execute":"qmp_capabilities"}',
      'Capabilities negotiation is already complete, command ignored',
      'CommandNotFound',
    ],
    ['{"execute":"fail"}', 'it is too large'],
    ['{"execute":"refuse"}', "Device 'x' not found", 'DeviceNotFound'],
    ['{"execute":5}', "QMP input member 'execute' must be a string"],
    ['{}', "QMP input lacks member 'execute'"],
    ['{"execute":"nothing","x":1}', "QMP input member 'x' is unexpected"],
    ['{"exec-oob":"nothing"}', "QMP input member 'exec-oob' is unexpected"],
    ['{"execute":"nothing","arguments":[]}', "QMP input member 'arguments' must be an object"],
    ['{"execute":"nothing","arguments":null}', "QMP input member 'arguments' must be an object"],
    ['{"execute":"a","execute":"b"}', 'JSON parse error, duplicate key'],
    ['{"a":}', 'JSON parse error, expecting value'],
    ['{"a" 1}', 'JSON parse error, missing : in object pair'],
    ['{"a":nul}', "JSON parse error, invalid keyword 'nul'"],
    ['{"a":1 "b":2}', 'JSON parse error, expected separator in dict'],
    ['{"a":[1 2]}', 'JSON parse error, expected separator in list'],
    ['{"a":[}]', 'JSON parse error, expecting value'],
    ['{1:2}', 'JSON parse error, key is not a string in object'],
    ['[{}]\n', 'JSON parse error, byte 0x5b where a JSON object should begin'],
    [Buffer.from('{"\xc3(":1}', 'latin1'), 'JSON parse error, text that is not UTF-8'],
    [Buffer.from([0xff]), 'JSON parse error, byte 0xff, which is not UTF-8'],
  ])('refuses %s, and goes on', async (text, desc, errorClass = 'GenericError') => {
    const client = await Client.connect((await started()).path);
    expect(await client.answers(text, '{"execute":"nothing"}')).toEqual([
      refusal(desc, errorClass),
      { return: {} },
    ]);
  });

  test('asks for the agreement on capabilities first, and offers none', async () => {
    const { path, server } = await started();
    const client = await Client.connect(path);
    client.send('{"execute":"nothing"}');
    client.send('{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}');
    client.send('{"execute":"qmp_capabilities","arguments":{"x":1}}');
    await client.lines(4);
    server.event('TOO_EARLY');
    client.send('{"execute":"qmp_capabilities","arguments":{"enable":[]}}');
    const [greeting, ...answers] = await client.lines(5);
    expect(greeting).toEqual({
      QMP: {
        version: { qemu: { major: 10, minor: 0, micro: 3 }, package: 'of a test' },
        capabilities: [],
      },
    });
    expect(answers).toEqual([
      refusal("Expecting capabilities negotiation with 'qmp_capabilities'", 'CommandNotFound'),
      refusal('Capability oob not available'),
      refusal("Parameter 'x' is unexpected"),
      { return: {} },
    ]);
  });

  test('tells all clients of an event', async () => {
    const { path, server } = await started();
    const clients = await Promise.all(Array.from({ length: 100 }, () => Client.connect(path)));
    for (const client of clients) await client.answers();
    server.event('SHUTDOWN', { guest: false });
    for (const client of clients) {
      const event = (await client.lines(3))[2] as Record<string, unknown>;
      expect(event).toMatchObject({ event: 'SHUTDOWN', data: { guest: false } });
      expect(Object.keys(event.timestamp as object)).toEqual(['seconds', 'microseconds']);
    }
    expect(server.clientCount).toBe(100);
  });

  test('hangs up on a client that does not read events, and serves the others', async () => {
    const { path, server, refused } = await started({ backlogBytes: 65536 });
    const lazy = await Client.connect(path);
    await lazy.answers();
    lazy.socket.pause();
    const other = await Client.connect(path);
    await other.answers();
    const data = { text: 'x'.repeat(50_000) };
    for (let count = 0; server.clientCount === 2; count++) {
      server.event('MUCH', data);
      await other.lines(3 + count);
      expect(count).toBeLessThan(100);
    }
    expect(refused.map(({ message }) => message)).toEqual([
      'a client was hung up on: a client does not read what it is sent: more than 65536 bytes wait for it',
    ]);
  });

  test('does not count an answer that is being read as events that nobody reads', async () => {
    const { path, server, refused } = await started(
      { backlogBytes: 65536 },
      { much: () => 'x'.repeat(2_000_000) },
    );
    const slow = await Client.connect(path);
    const gone = once(slow.socket, 'close');
    await slow.answers();
    slow.send('{"execute":"much"}');
    await once(slow.socket, 'data');
    slow.socket.pause();
    server.event('NEWS');
    slow.socket.resume();
    const lines = await Promise.race([slow.lines(4), gone.then(() => [])]);
    expect(lines.slice(3)).toMatchObject([{ event: 'NEWS' }]);
    expect(refused).toEqual([]);
  });

  test('counts the events that wait behind an answer', async () => {
    const { path, server, refused } = await started(
      { backlogBytes: 65536 },
      { much: () => 'x'.repeat(2_000_000) },
    );
    const lazy = await Client.connect(path);
    await lazy.answers();
    lazy.send('{"execute":"much"}');
    await once(lazy.socket, 'data');
    lazy.socket.pause();
    for (let count = 0; server.clientCount === 1 && count < 100; count++) {
      server.event('MUCH', { text: 'x'.repeat(50_000) });
      await sleep(0);
    }
    expect(refused).toHaveLength(1);
  });

  test('does not carry out commands whose answers nobody reads', async () => {
    let count = 0;
    const { path, server } = await started(
      {},
      {
        much: () => {
          count++;
          return 'x'.repeat(100_000);
        },
      },
    );
    const lazy = await Client.connect(path);
    await lazy.answers();
    lazy.socket.pause();
    for (let sent = 0; sent < 1000; sent++) lazy.send('{"execute":"much"}');
    const other = await Client.connect(path);
    await other.answers('{"execute":"much"}');
    expect(count).toBeLessThan(50);
    expect(server.clientCount).toBe(2);
  });

  test.each([
    ['deep', `${'{"a":'.repeat(1025)}\n`, 'JSON that is nested more than 1024 levels deep'],
    ['long', `{"execute":"${'x'.repeat(200_000)}"}\n`, 'a JSON object of more than 70000 bytes'],
  ])('drops a command that is too %s, and goes on behind it', async (_how, text, desc) => {
    const client = await Client.connect((await started({ messageBytes: 70_000 })).path);
    expect(await client.answers(text, '{"execute":"nothing"}')).toEqual([
      refusal(`JSON parse error, ${desc}`),
      { return: {} },
    ]);
  });

  test('drops a command of too many parts', async () => {
    const client = await Client.connect((await started()).path);
    const text = `{"execute":"nothing","arguments":{"a":[${'0,'.repeat(2 ** 21)}0]}}\n`;
    expect(await client.answers(text, '{"execute":"nothing"}')).toEqual([
      refusal('JSON parse error, a JSON object of more than 2097152 parts'),
      { return: {} },
    ]);
  });

  test('hangs up where clients together have begun too much', async () => {
    const { path, server, refused } = await started({ heldBytes: 300_000 });
    const begun = `{"execute":"${'x'.repeat(200_000)}`;
    const [first, second] = [await Client.connect(path), await Client.connect(path)];
    first.send(begun);
    second.send(begun);
    while (server.clientCount === 2) await sleep(1);
    expect(refused).toHaveLength(1);
    const [left] = [first, second].filter(({ socket }) => !socket.closed);
    left.send('"}');
    expect((await left.lines(2))[1]).toMatchObject({ error: { class: 'CommandNotFound' } });
  });

  test('hangs up on more clients than it takes', async () => {
    const { path, refused } = await started({ clients: 1 });
    await Client.connect(path);
    const second = connect({ path });
    await once(second, 'close');
    expect(refused[0].message).toMatch(/there are 1 already/);
  });

  test('answers a client that has ended its side', async () => {
    const client = await Client.connect((await started()).path);
    client.send('{"execute":"qmp_capabilities"}{"execute":"query-late"}');
    client.socket.end();
    await once(client.socket, 'close');
    expect((await client.lines(3))[2]).toEqual({ return: { late: true } });
  });

  test('answers what is under way when it closes, and lets nobody in then', async () => {
    const { path, server } = await started();
    const client = await Client.connect(path);
    client.send('{"execute":"qmp_capabilities"}{"execute":"query-late"}{"execute":"nothing"}');
    await client.lines(2);
    await server.close();
    expect((await client.lines(3)).slice(1)).toEqual([{ return: {} }, { return: { late: true } }]);
    await expect(stat(path)).rejects.toThrow(/ENOENT/);
    await expect(server.listen({ path })).rejects.toThrow(/was closed/);
  });

  test('cuts off a command that does not end in time when it closes', async () => {
    const { path, server, refused } = await started({}, { never: () => new Promise(() => {}) });
    const client = await Client.connect(path);
    client.send('{"execute":"qmp_capabilities"}{"execute":"never"}');
    await client.lines(2);
    await server.close({ timeoutMs: 1 });
    expect(refused[0].message).toMatch(/1 ms were over/);
  });

  test('makes a socket for its owner alone', async () => {
    const { path } = await started();
    expect((await stat(path)).mode & 0o777).toBe(0o600);
  });

  test('takes the place of a socket that a server has left behind, and of nothing else', async () => {
    const { path } = await started();
    const second = new QmpServer({ commands: {}, version });
    await expect(second.listen({ path })).rejects.toMatchObject({ code: 'ERR_DEVICE_OPEN' });
    const file = join(FOLDER, 'file');
    await writeFile(file, 'kept');
    await expect(second.listen({ path: file })).rejects.toMatchObject({ code: 'ERR_DEVICE_OPEN' });
    await Monitor.connect({ path }).then((monitor) => monitor.close());
  });

  test('serves clients of a listener that is not its own', async () => {
    const server = new QmpServer({ commands: COMMANDS, version });
    const path = join(FOLDER, 'own');
    const own = createServer({ allowHalfOpen: true }, (socket) => server.attach(socket));
    own.listen({ path });
    await once(own, 'listening');
    onTestFinished(() => void own.close());
    onTestFinished(() => server.close());
    await using monitor = await Monitor.connect({ path });
    expect(await monitor.execute('query-echo', { a: 1 })).toEqual({ a: 1 });
  });

  test('refuses options and addresses that make no sense', async () => {
    expect(() => new QmpServer({ commands: { a: 1 as never }, version })).toThrow(/function/);
    expect(() => new QmpServer({ commands: { qmp_capabilities: () => 1 }, version })).toThrow(
      /of one's own/,
    );
    expect(() => new QmpServer({ commands: {}, version, limits: { clients: 0 } })).toThrow(
      RangeError,
    );
    const server = new QmpServer({ commands: {}, version });
    await expect(server.listen({ path: '' })).rejects.toThrow(TypeError);
    await expect(server.listen({ path: '/nowhere/at/all' })).rejects.toMatchObject({
      code: 'ERR_DEVICE_OPEN',
    });
    await expect(server.close({ timeoutMs: -1 })).rejects.toThrow(RangeError);
  });
});
