import { setTimeout as sleep } from 'node:timers/promises';
import type { LacunaError } from 'lacuna/errors';
import { Monitor } from 'lacuna/qmp';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type Answer, GREETING, returned, ScriptedPeer } from '../../support/scripted-peer.js';

const silent: Answer = () => undefined;

async function connected(peer: ScriptedPeer): Promise<Monitor> {
  const monitor = await Monitor.connect(peer.address);
  onTestFinished(() => monitor.close());
  return monitor;
}

/** A monitor whose peer answers as it is told. */
async function scripted(answer: Answer): Promise<{ monitor: Monitor; peer: ScriptedPeer }> {
  const peer = await ScriptedPeer.monitor(answer);
  return { monitor: await connected(peer), peer };
}

async function failureOf(work: Promise<unknown>): Promise<LacunaError> {
  return await work.then(
    () => expect.unreachable(),
    (error) => error,
  );
}

function refusal(id: number | undefined, text = 'No such node'): string {
  return `${JSON.stringify({ error: { class: 'GenericError', desc: text }, id })}\n`;
}

describe('a monitor', () => {
  test('tells the version and enables what is offered', async () => {
    const { monitor, peer } = await scripted(silent);
    expect(monitor.version).toEqual({ major: 7, minor: 2, micro: 22, package: 'scripted' });
    expect(monitor.capabilities).toEqual(['oob']);
    expect(peer.commands[0].arguments).toEqual({ enable: ['oob'] });
  });

  test('understands a greeting that is cut at any byte', async () => {
    const bytes = Buffer.from(`  \r\n${GREETING.replaceAll(',', ',\n  ')}`);
    for (let at = 0; at <= bytes.length; at += 7) {
      const peer = await ScriptedPeer.start((socket, self) => {
        socket.setNoDelay(true);
        socket.write(bytes.subarray(0, at));
        setTimeout(() => socket.write(bytes.subarray(at)), 2);
        self.converse(socket, (command) => returned(command));
      });
      const monitor = await Monitor.connect(peer.address);
      expect(monitor.version.micro).toBe(22);
      await monitor.close();
    }
  });

  test('that does not greet is in use by somebody else, which is said when the time is over', async () => {
    const peer = await ScriptedPeer.start(() => {});
    const failure = await Monitor.connect(peer.address, { timeoutMs: 50 }).catch((error) => error);
    expect(failure).toMatchObject({ code: 'ERR_QMP_BUSY', retryable: true });
    expect(failure.message).toContain('another client uses it');
  });

  test.each([
    ['greets without a version', '{"QMP":{}}'],
    ['greets with a version of words', '{"QMP":{"version":{"qemu":{"major":"x"}}}}'],
    ['speaks another protocol', 'NBDMAGIC'],
    ['sends an answer first', '{"return":{}}'],
    ['sends an event first', '{"event":"STOP","timestamp":{}}'],
    ['sends something else', '{"hello":1}'],
    ['greets twice', GREETING + GREETING],
  ])('is not what it should be when it %s', async (_, greeting) => {
    const peer = await ScriptedPeer.monitor(silent, greeting);
    await expect(Monitor.connect(peer.address)).rejects.toSatisfy((error) =>
      ['ERR_QMP_PROTOCOL', 'ERR_QMP_UNANSWERED'].includes(error.code),
    );
  });

  test('that nobody offers cannot be connected', async () => {
    const failure = await Monitor.connect({ path: '/nowhere/qmp' }).catch((error) => error);
    expect(failure).toMatchObject({ code: 'ERR_QMP_DISCONNECTED', device: 'monitor /nowhere/qmp' });
  });

  test.each([
    [{ path: '' }, /path of a socket/],
    [{ path: 'a\0b' }, /path of a socket/],
    [{ path: `/${'x'.repeat(200)}` }, /at most 107 bytes/],
    [{ host: 'localhost', port: 0 }, /port is a number/],
    [{ host: '192.0.2.1', port: 4444 }, /another machine/],
    [{ pth: '/x' }, /did you mean "path"/],
  ])('is not looked for at %j', async (address, message) => {
    await expect(Monitor.connect(address as never)).rejects.toThrow(message);
  });

  test('gives up connecting when the signal fires', async () => {
    const peer = await ScriptedPeer.start(() => {});
    const connecting = Monitor.connect(peer.address, { signal: AbortSignal.timeout(20) });
    await expect(connecting).rejects.toMatchObject({ name: 'AbortError', code: 'ERR_ABORTED' });
  });
});

describe('commands', () => {
  test('get the answers that belong to them, in whatever order these come', async () => {
    const kept: string[] = [];
    const { monitor } = await scripted((command) => {
      kept.push(returned(command, command.execute));
      return kept.length === 3 ? kept.reverse().join('') : undefined;
    });
    const names = ['a', 'b', 'c'];
    expect(await Promise.all(names.map((name) => monitor.execute(name)))).toEqual(names);
  });

  test('that are refused tell the class and the words of QEMU', async () => {
    const { monitor } = await scripted(({ id }) => refusal(id, 'Node \u202e"x" not\nfound'));
    const failure = await failureOf(monitor.execute('blockdev-del'));
    expect(failure).toMatchObject({
      code: 'ERR_QMP_COMMAND',
      errno: 'GenericError',
      description: 'Node \u202e"x" not\nfound',
    });
    expect(failure.message).toContain('refused "blockdev-del": Node  "x" not found');
  });

  test('that are not answered in time may have been done, and a late answer does no harm', async () => {
    const { monitor, peer } = await scripted((command) =>
      command.execute === 'slow' ? undefined : returned(command, 1),
    );
    const failure = await failureOf(monitor.execute('slow', {}, { timeoutMs: 30 }));
    expect(failure).toMatchObject({ code: 'ERR_QMP_UNANSWERED', retryable: false });
    expect(failure.cause).toMatchObject({ code: 'ERR_TIMEOUT' });
    peer.say(returned(peer.commands.find(({ execute }) => execute === 'slow')!));
    expect(await monitor.execute('quick')).toBe(1);
  });

  test('end for the caller when the signal fires', async () => {
    const { monitor } = await scripted(silent);
    const signal = AbortSignal.timeout(20);
    await expect(monitor.execute('slow', {}, { signal })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
    await expect(monitor.execute('next', {}, { signal })).rejects.toThrow(/Aborted/);
  });

  test('go out of band where that is offered', async () => {
    const { monitor, peer } = await scripted((command) => returned(command));
    await monitor.execute('migrate-pause', {}, { outOfBand: true });
    expect(peer.commands.at(-1)).toMatchObject({ 'exec-oob': 'migrate-pause' });
    const plain = await ScriptedPeer.monitor(silent, GREETING.replace('"oob"', ''));
    await expect(
      (await connected(plain)).execute('migrate-pause', {}, { outOfBand: true }),
    ).rejects.toMatchObject({ code: 'ERR_QMP_UNSUPPORTED' });
  });

  test('that were sent when the connection is lost may have been done', async () => {
    const { monitor } = await scripted((_, socket) => void socket.destroy());
    const lost = await Promise.allSettled([
      monitor.execute('transaction', {}),
      monitor.execute('query-jobs'),
    ]);
    expect(lost).toMatchObject([
      { reason: { code: 'ERR_QMP_UNANSWERED', retryable: false } },
      { reason: { code: 'ERR_QMP_UNANSWERED', retryable: true } },
    ]);
    expect(monitor.isConnected).toBe(false);
    await expect(monitor.execute('query-jobs')).rejects.toMatchObject({
      code: 'ERR_QMP_DISCONNECTED',
    });
  });

  test.each([
    ['to nothing that was asked', '{"return":{},"id":77}\n'],
    ['without an id', '{"return":{}}\n'],
    ['with an id that is no number', '{"return":{},"id":{"a":[]}}\n'],
    ['that is an error without words', '{"error":{},"id":2}\n'],
    ['that is nothing known', '{"answer":1}\n'],
    ['that is not JSON', '{"return" 1}\n'],
  ])('end with the connection at an answer %s', async (_, answer) => {
    const { monitor } = await scripted(() => answer);
    const failure = await failureOf(monitor.execute('query-jobs'));
    expect(failure.code).toBe('ERR_QMP_UNANSWERED');
    expect(failure.cause).toMatchObject({ code: 'ERR_QMP_PROTOCOL' });
    expect(monitor.isConnected).toBe(false);
  });

  test.each([
    ['query-jobs', {}],
    ['query-jobs', [1]],
    ['query-jobs', [{ id: 1, type: 'backup', status: 'running' }]],
    ['query-named-block-nodes', [{ drv: 'raw' }]],
    ['query-block-exports', [{ id: 'e', type: 'nbd', 'node-name': 'n', 'shutting-down': 1 }]],
    ['query-qmp-schema', null],
  ])('%s are told from answers that cannot be, such as %j', async (command, value) => {
    const { monitor } = await scripted((sent) => returned(sent, value));
    await expect(monitor.execute(command)).rejects.toMatchObject({ code: 'ERR_QMP_PROTOCOL' });
  });
});

describe('a command that must not be done twice', () => {
  /** A peer that hangs up at the first `blockdev-add`, and has done it or not. */
  async function hangsUp(done: boolean) {
    const { monitor, peer } = await scripted((command, socket) => {
      if (command.execute === 'look') return returned(command, done);
      if (peer.connections > 1) return returned(command);
      socket.destroy();
      return undefined;
    });
    const isDone = async (again: Monitor) => (await again.execute('look')) === true;
    await monitor.executeOnce('blockdev-add', {}, { isDone });
    return peer.commands
      .map(({ execute }) => execute)
      .filter((name) => name !== 'qmp_capabilities');
  }

  test('is not sent again when it has been done', async () => {
    expect(await hangsUp(true)).toEqual(['blockdev-add', 'look']);
  });

  test('is sent again only after it was looked', async () => {
    expect(await hangsUp(false)).toEqual(['blockdev-add', 'look', 'blockdev-add']);
  });

  test('is not sent for ever to a peer that always hangs up', async () => {
    const { monitor, peer } = await scripted((command, socket) =>
      command.execute === 'look' ? returned(command, false) : void socket.destroy(),
    );
    const isDone = async (again: Monitor) => (await again.execute('look')) === true;
    await expect(monitor.executeOnce('quit', {}, { isDone })).rejects.toMatchObject({
      code: 'ERR_QMP_UNANSWERED',
    });
    expect(peer.commands.filter(({ execute }) => execute === 'quit')).toHaveLength(3);
  });

  test('is not sent again when nobody can look', async () => {
    const { monitor, peer } = await scripted(() => void peer.stop());
    const isDone = async () => false;
    await expect(
      monitor.executeOnce('blockdev-add', {}, { isDone, reconnectMs: 100 }),
    ).rejects.toMatchObject({ code: 'ERR_QMP_UNANSWERED', retryable: false });
  });

  test('is not looked for while it may still be done', async () => {
    const { monitor } = await scripted(silent);
    const isDone = async () => expect.unreachable();
    await expect(
      monitor.executeOnce('blockdev-add', {}, { isDone, timeoutMs: 30 }),
    ).rejects.toMatchObject({ code: 'ERR_QMP_UNANSWERED' });
  });
});

describe('events', () => {
  const event = (name: string, data: object) =>
    `${JSON.stringify({ event: name, data, timestamp: { seconds: 2, microseconds: 500000 } })}\n`;
  const status = (id: string) => event('JOB_STATUS_CHANGE', { id, status: 'running' });

  test('come in order, each stream with its own', async () => {
    const { monitor, peer } = await scripted(silent);
    const jobs = monitor.events(['JOB_STATUS_CHANGE']);
    const all = monitor.events();
    peer.say(status('a') + event('STOP', {}) + status('b'));
    expect((await jobs.next()).value).toMatchObject({ data: { id: 'a' }, timeMs: 2500 });
    expect((await jobs.next()).value).toMatchObject({ data: { id: 'b' } });
    await expect.poll(() => all.waiting).toBe(3);
  });

  test('that a slow reader misses are counted by name, and told with the next one', async () => {
    const { monitor, peer } = await scripted(silent);
    const stream = monitor.events([], { limit: 2 });
    const other = monitor.events();
    peer.say(status('a') + status('b') + status('c') + event('STOP', {}) + status('d'));
    await expect.poll(() => other.waiting).toBe(5);
    expect((await stream.next()).value).not.toHaveProperty('missed');
    expect((await stream.next()).value).not.toHaveProperty('missed');
    peer.say(status('e'));
    expect((await stream.next()).value).toMatchObject({
      data: { id: 'e' },
      missed: { JOB_STATUS_CHANGE: 2, STOP: 1 },
    });
  });

  test('end with the connection, behind those that had come', async () => {
    const { monitor, peer } = await scripted(silent);
    const stream = monitor.events();
    peer.say(status('a'));
    await expect.poll(() => stream.waiting).toBe(1);
    peer.hangUp();
    expect((await stream.next()).value).toMatchObject({ data: { id: 'a' } });
    await expect(stream.next()).rejects.toMatchObject({ code: 'ERR_QMP_DISCONNECTED' });
    await expect(monitor.events().next()).rejects.toMatchObject({ code: 'ERR_QMP_DISCONNECTED' });
  });

  test('end when the loop is left, also one that waits', async () => {
    const { monitor, peer } = await scripted(silent);
    const stream = monitor.events();
    peer.say(status('a'));
    for await (const { event: name } of stream) {
      expect(name).toBe('JOB_STATUS_CHANGE');
      break;
    }
    expect(await stream.next()).toEqual({ value: undefined, done: true });
    const waiting = monitor.events();
    const two = [waiting.next(), waiting.next()];
    waiting.close();
    expect(await Promise.all(two)).toMatchObject([{ done: true }, { done: true }]);
  });

  test.each([
    ['without a name', '{"event":1}\n'],
    ['without what belongs to it', '{"event":"BLOCK_EXPORT_DELETED","data":{"id":5}}\n'],
  ])('%s end the connection', async (_, text) => {
    const { monitor, peer } = await scripted(silent);
    const stream = monitor.events();
    peer.say(text);
    const failure = await stream.next().catch((error) => error);
    expect(failure.code).toBe('ERR_QMP_DISCONNECTED');
    expect(failure.cause.code).toBe('ERR_QMP_PROTOCOL');
  });
});

describe('what QEMU says of itself', () => {
  const SCHEMA = [
    { name: 'blockdev-backup', 'meta-type': 'command', 'arg-type': '1', 'ret-type': '0' },
    { name: '1', 'meta-type': 'object', members: [{ name: 'sync', type: '2' }] },
    { name: '2', 'meta-type': 'enum', values: ['full', 'none'] },
    { name: 'ring', 'meta-type': 'command', 'arg-type': '[3]', 'ret-type': '0' },
    { name: '[3]', 'meta-type': 'array', 'element-type': '[3]' },
  ];

  test('is asked before anything is done that needs it', async () => {
    const { monitor, peer } = await scripted((command) => returned(command, SCHEMA));
    await monitor.require({ 'blockdev-backup': ['sync.none'] });
    const failure = await monitor
      .require({ 'blockdev-backup': ['sync.top', 'filter-node-name'], 'block-export-add': [] })
      .catch((error) => error);
    expect(failure.code).toBe('ERR_QMP_UNSUPPORTED');
    expect(failure.message).toContain(
      'QEMU 7.2.22 does not have blockdev-backup: sync.top, blockdev-backup: filter-node-name, block-export-add, which',
    );
    expect(peer.commands).toHaveLength(2);
  });

  test('may go in circles without hanging anybody', async () => {
    const { monitor } = await scripted((command) => returned(command, SCHEMA));
    expect((await monitor.schema()).has('ring', 'a.b.c')).toBe(false);
  });

  test.each([[[1]], [[{ name: 'x' }]], [[{ name: 'x', 'meta-type': 'object', members: {} }]]])(
    'is refused when it cannot be: %j',
    async (schema) => {
      const { monitor } = await scripted((command) => returned(command, schema));
      await expect(monitor.schema()).rejects.toMatchObject({ code: 'ERR_QMP_PROTOCOL' });
    },
  );
});

test('an idle monitor is closed once and for all', async () => {
  const { monitor } = await scripted(silent);
  await monitor.close();
  await monitor.close();
  await expect(monitor.execute('query-jobs')).rejects.toMatchObject({
    code: 'ERR_QMP_DISCONNECTED',
  });
  await expect(monitor.reconnect()).rejects.toMatchObject({ code: 'ERR_QMP_DISCONNECTED' });
  await sleep(0);
});
