/** Machines of qemu-system: disks by the devices that the guest sees, a server of the session's own, and the guest's agent. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { createQcow2 } from 'lacuna';
import { type BackupOptions, type BackupSession, Machine } from 'lacuna/qemu';
import { Monitor } from 'lacuna/qmp';
import { beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { usePeers } from '../../support/peers.js';
import { QmpProxy } from '../../support/qmp-proxy.js';
import { returned, ScriptedPeer } from '../../support/scripted-peer.js';

const SIZE = 2 ** 20;
const CHILD = fileURLToPath(new URL('backup-child.mjs', import.meta.url));

const peers = usePeers('suite');
let folder: string;
let proxy: QmpProxy;

/** A machine with two disks, one of them behind a filter, and a read-only one, whose processors stand still. */
beforeAll(async () => {
  const base = await peers.folder();
  folder = join(base, 'sessions');
  mkdirSync(folder);
  for (const name of ['vda', 'vdb', 'cd']) {
    await createQcow2(join(base, `${name}.qcow2`), { size: SIZE });
  }
  const blockdev = (name: string, more = '') => [
    '-blockdev',
    `qcow2,node-name=${name},file.driver=file,file.filename=${base}/${name}.qcow2${more}`,
  ];
  const { server } = await peers.machine([
    ...[...blockdev('vda'), ...blockdev('vdb'), ...blockdev('cd', ',read-only=on')],
    ...['-object', 'throttle-group,id=limits,x-iops-total=100000'],
    ...['-blockdev', 'throttle,node-name=top-b,throttle-group=limits,file=vdb'],
    ...['-device', 'virtio-blk-pci,id=system,drive=vda'],
    ...['-device', 'virtio-blk-pci,id=data,drive=top-b'],
    ...['-device', 'virtio-blk-pci,id=cd,drive=cd'],
  ]);
  proxy = await QmpProxy.start(server.path);
});

beforeEach(() => proxy.reset());

async function connected(agent?: { path: string }): Promise<Machine> {
  const machine = await Machine.connect({ monitor: { path: proxy.path }, folder, agent });
  onTestFinished(() => machine.close());
  return machine;
}

/** Writes as the guest's device would. */
async function write(machine: Machine, id: string, byte: number, offset: number): Promise<void> {
  const device = `/machine/peripheral/${id}/virtio-backend`;
  await machine.monitor.execute('human-monitor-command', {
    'command-line': `qemu-io -d ${device} "write -P ${byte} ${offset} 65536"`,
  });
}

async function read(session: BackupSession, name: string, image = Buffer.alloc(SIZE)) {
  for await (const { offset, length, data } of session.disk(name).extents()) {
    image.set(data ?? Buffer.alloc(length), offset);
  }
  return image;
}

async function left(machine: Machine): Promise<unknown[]> {
  return [
    ...(await machine.monitor.execute('query-block-exports')),
    ...(await machine.monitor.execute('query-jobs')),
    ...readdirSync(folder),
  ];
}

describe('a machine', () => {
  test('tells its disks by their devices, with the nodes that have data and bitmaps', async () => {
    const machine = await connected();
    expect(await machine.inspect()).toMatchObject([
      { name: 'system', top: 'vda', node: 'vda', format: 'qcow2', size: SIZE, canPersist: true },
      { name: 'data', top: 'top-b', node: 'vdb', format: 'qcow2', canPersist: true },
    ]);
    expect(await machine.inspect(['cd'])).toMatchObject([{ readOnly: true, canPersist: false }]);
    const failure = await machine.inspect(['sda']).catch((error) => error);
    expect(failure.message).toContain('its disks are system, data, cd');
  });

  test('is backed up over a server of the session, also where a filter lies above a disk', async () => {
    const machine = await connected();
    let base: string | undefined;
    const images = [Buffer.alloc(SIZE), Buffer.alloc(SIZE)];
    for (let round = 1; round < 4; round++) {
      await write(machine, 'system', round, round * 65536);
      await write(machine, 'data', 16 + round, 0);
      const session = await machine.backup({ base });
      await write(machine, 'system', 99, round * 65536);
      await write(machine, 'data', 99, 0);
      await read(session, 'system', images[0]);
      await read(session, 'data', images[1]);
      base = (await session.finish(() => {})).point.generation;
      expect(images[0][round * 65536]).toBe(round);
      expect(images[0][(round - 1) * 65536]).toBe(round === 1 ? 0 : 99);
      expect(images[1][0]).toBe(16 + round);
      expect(await left(machine)).toEqual([]);
    }
    await machine.forget(base!);
  });
});

/** A backup in a process of its own, which is killed at a command or phase. */
async function killedAt(place: string): Promise<void> {
  const given = {
    machine: { monitor: { path: proxy.path }, folder },
    disks: ['system', 'data'],
    store: await peers.folder(),
    size: SIZE,
  };
  const child = spawn(process.execPath, [CHILD, JSON.stringify(given)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  const kill = (here: string) => {
    if (here !== place) return;
    child.kill('SIGKILL');
    throw new Error('the child is dead');
  };
  proxy.reset({ after: ({ name }) => kill(name) });
  goOn(child, kill);
  expect((await exited)[0]).toBeNull();
  proxy.reset();
}

/** A machine of this test alone, with a monitor for what somebody else does. */
async function ownMachine() {
  const base = await peers.folder();
  const [own, image, path] = ['own', 'own.qcow2', 'other'].map((name) => join(base, name));
  mkdirSync(own);
  await createQcow2(image, { size: SIZE });
  const { server } = await peers.machine([
    ...['-qmp', `unix:${path},server=on,wait=off`],
    ...['-blockdev', `qcow2,node-name=hda,file.driver=file,file.filename=${image}`],
    ...['-device', 'virtio-blk-pci,id=hda,drive=hda'],
  ]);
  const between = await QmpProxy.start(server.path);
  const machine = await Machine.connect({ monitor: { path: between.path }, folder: own });
  // Its monitors are served one after another: now both are there.
  await machine.monitor.execute('query-status');
  const other = await Monitor.connect({ path });
  onTestFinished(async () => {
    await machine.close();
    await other.close();
    await between.stop();
    rmSync(own, { recursive: true });
    rmSync(image);
  });
  return { machine, other, between, folder: own };
}

describe('somebody else', () => {
  test('makes a snapshot while a backup begins, which then does not', async () => {
    const { machine, other, between, folder: own } = await ownMachine();
    const overlay = join(own, '..', 'snapshot.qcow2');
    between.reset({
      before: async ({ name }) => {
        if (name !== 'nbd-server-start') return;
        await other.execute('blockdev-snapshot-sync', {
          ...{ 'node-name': 'hda', 'snapshot-file': overlay, 'snapshot-node-name': 'snapshot' },
        });
      },
    });
    const failure = await machine.backup().catch((error) => error);
    expect(failure).toMatchObject({ code: 'ERR_MACHINE_BUSY', retryable: true });
    expect(failure.message).toContain('a snapshot of hda was made');
    expect(readdirSync(own)).toEqual([]);
    between.reset();
    await (await machine.backup()).forget();
    rmSync(overlay);
  });

  test('uses the server of a backup that fails, which recovering stops when it is free', async () => {
    const { machine, other, between, folder: own } = await ownMachine();
    between.reset({
      before: async ({ name }) => {
        if (name !== 'transaction') return;
        const theirs = { id: 'theirs', 'node-name': 'hda', name: 'theirs' };
        await other.execute('block-export-add', { type: 'nbd', ...theirs });
        between.cut();
      },
    });
    await expect(machine.backup()).rejects.toThrow(/goes on: others export theirs there/);
    await other.execute('block-export-del', { id: 'theirs', mode: 'hard' });
    between.reset();
    const { warnings } = await machine.recover({ generation: null });
    expect(warnings).toEqual([]);
    expect(readdirSync(own)).toEqual([]);
    await (await machine.backup()).forget();
  });
});

test('a server with which somebody is stuck in a handshake is left running where that could hang QEMU', async () => {
  const { machine, other, between, folder: own } = await ownMachine();
  const session = await machine.backup();
  const socket = readdirSync(own, { recursive: true, encoding: 'utf8' }).find((name) =>
    statSync(join(own, name)).isSocket(),
  )!;
  // As a client that is stopped: it is greeted, and says nothing.
  const stuck = connect(join(own, socket));
  await once(stuck, 'data');
  // It is waited for as long as that may take, which is over in a moment.
  let lateMs = 0;
  const now = performance.now.bind(performance);
  const clock = vi.spyOn(performance, 'now').mockImplementation(() => now() + lateMs);
  onTestFinished(() => clock.mockRestore());
  between.reset({
    after: ({ name }) => {
      const isLast = between.passed.at(-2) === 'query-named-block-nodes';
      if (name !== 'query-block-exports' || !isLast) return;
      setTimeout(() => {
        lateMs = 11_000;
      }, 50);
    },
  });
  const { warnings } = await session.finish(() => {});
  between.reset();
  const isSafe = machine.monitor.version.major >= 8;
  const warning = expect.stringContaining('somebody is connected, and this QEMU could hang');
  expect(warnings).toEqual(isSafe ? [] : [warning]);
  await other.execute('query-status');
  stuck.destroy();
  const { generation } = session.point;
  const report = await machine.recover({ generation: generation! });
  expect(report.warnings).toEqual([]);
  expect(readdirSync(own)).toEqual([]);
});

describe('a process that is killed with a server of its own', () => {
  test.each(['nbd-server-start', 'block-export-add', 'begun', 'view ended'])(
    'at %s leaves one that is stopped by recovering, and the next backup has its own',
    async (place) => {
      await killedAt(place);
      const machine = await connected();
      const report = await machine.recover({ generation: null });
      expect(report).toMatchObject({ warnings: [], unknown: [], running: [] });
      expect(report.recovered).toHaveLength(1);
      expect(await left(machine)).toEqual([]);
      const session = await machine.backup();
      await session.forget();
      expect(await left(machine)).toEqual([]);
    },
  );

  test.each(['begun', 'view ended'])(
    'at %s is recovered by whoever reaches the machine by another path',
    async (place) => {
      await killedAt(place);
      const link = join(await peers.folder(), `link ${place}`);
      symlinkSync(proxy.path, link);
      await using machine = await Machine.connect({ monitor: { path: link }, folder });
      const { recovered } = await machine.recover({ generation: null });
      expect(recovered).toHaveLength(1);
      expect(await left(machine)).toEqual([]);
      const disks = await machine.inspect();
      expect(disks.flatMap(({ bitmaps }) => bitmaps)).toEqual([]);
    },
  );
});

/** The processes that guard agents for a process. */
function guardsOf(pid = process.pid): number[] {
  const tasks = readdirSync(`/proc/${pid}/task`);
  const lists = tasks.map((task) => readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8'));
  const children = lists.flatMap((list) => list.split(' ').filter(Boolean).map(Number));
  return children.filter((child) =>
    readFileSync(`/proc/${child}/cmdline`, 'utf8').includes('guard-process'),
  );
}

function goOn(child: ChildProcess, kill: (phase: string) => void): void {
  createInterface({ input: child.stdout! }).on('line', (phase) => {
    try {
      kill(phase);
      child.stdin!.write('\n');
    } catch {
      // It gets no word any more.
    }
  });
  child.stdin!.on('error', () => {});
}

describe('the guest', () => {
  /** What was asked of the agent and of QEMU, in order. */
  let asked: string[];

  /** An agent that answers what it is told to; commands that are not there are never answered. */
  function agentThat(answers: Record<string, unknown>): Promise<ScriptedPeer> {
    asked = [];
    proxy.reset({ before: ({ name }) => void asked.push(name) });
    return ScriptedPeer.start((socket, peer) =>
      peer.converse(socket, (command) => {
        const name = command.execute!;
        if (name === 'guest-sync-delimited') {
          return Buffer.concat([
            Buffer.from([0xff]),
            Buffer.from(returned(command, command.arguments!.id)),
          ]);
        }
        asked.push(name);
        return answers[name] === undefined ? undefined : returned(command, answers[name]);
      }),
    );
  }

  const GOOD = { 'guest-fsfreeze-freeze': 2, 'guest-fsfreeze-thaw': 2 };

  async function backUp(agent: ScriptedPeer, options: BackupOptions = {}) {
    const machine = await connected(agent.address);
    const session = await machine.backup({
      freezeTimeoutMs: 600_000,
      freezeDeadlineMs: 600_000,
      ...options,
    });
    await session.forget();
    return session;
  }

  test('is frozen for the transaction alone', async () => {
    const { point, warnings } = await backUp(await agentThat(GOOD), { freeze: 'require' });
    expect(point.frozen).toBe(true);
    expect(warnings).toEqual([]);
    const from = asked.indexOf('guest-fsfreeze-freeze');
    expect(asked.slice(from, from + 3)).toEqual([
      'guest-fsfreeze-freeze',
      'transaction',
      'guest-fsfreeze-thaw',
    ]);
  });

  test('is thawed when the transaction fails', async () => {
    const agent = await agentThat(GOOD);
    const machine = await connected(agent.address);
    proxy.reset({
      before: ({ name }) => {
        asked.push(name);
        if (name === 'transaction') proxy.cut();
      },
    });
    await expect(machine.backup()).rejects.toMatchObject({ code: 'ERR_QMP_UNANSWERED' });
    expect(asked).toContain('guest-fsfreeze-thaw');
    expect(await left(machine)).toEqual([]);
  });

  test('that does not freeze in time is thawed, and is backed up with a warning', async () => {
    const agent = await agentThat({ 'guest-fsfreeze-thaw': 0 });
    const { point, warnings } = await backUp(agent, { freezeTimeoutMs: 100 });
    expect(point.frozen).toBe(false);
    expect(warnings).toEqual([expect.stringContaining('as after a power cut')]);
    expect(asked.indexOf('guest-fsfreeze-thaw')).toBeLessThan(asked.indexOf('transaction'));
  });

  test('that does not freeze in time is not backed up where that is required', async () => {
    const agent = await agentThat({ 'guest-fsfreeze-thaw': 0 });
    const machine = await connected(agent.address);
    await expect(machine.backup({ freeze: 'require', freezeTimeoutMs: 100 })).rejects.toMatchObject(
      { code: 'ERR_QMP_UNANSWERED' },
    );
    expect(asked).not.toContain('transaction');
    expect(asked).toContain('guest-fsfreeze-thaw');
    expect(await left(machine)).toEqual([]);
  });

  test('without an agent that answers is known before anything is changed', async () => {
    const agent = await ScriptedPeer.start((socket) => socket.destroy());
    asked = [];
    proxy.reset({ before: ({ name }) => void asked.push(name) });
    const machine = await connected(agent.address);
    await expect(machine.backup({ freeze: 'require' })).rejects.toMatchObject({
      code: 'ERR_AGENT_ABSENT',
    });
    expect(asked.filter((name) => !name.includes('query'))).toEqual([]);
  });

  /** A backup in a process of its own, which stands before the transaction, with the guest frozen. */
  async function frozenChild(agent: ScriptedPeer, freezeDeadlineMs: number) {
    const given = {
      machine: { monitor: { path: proxy.path }, folder, agent: agent.address },
      disks: ['system'],
      store: await peers.folder(),
      size: SIZE,
      backup: { freezeTimeoutMs: 600_000, freezeDeadlineMs, freeze: 'require' },
    };
    const child = spawn(process.execPath, [CHILD, JSON.stringify(given)], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const exited = once(child, 'exit');
    goOn(child, () => {});
    let goOnWithTransaction = () => {};
    await new Promise<void>((resolve) => {
      proxy.reset({
        before: ({ name }) => {
          asked.push(name);
          if (name !== 'transaction') return;
          resolve();
          return new Promise((release) => {
            goOnWithTransaction = release;
          });
        },
      });
    });
    expect(asked).toContain('guest-fsfreeze-freeze');
    return { child, exited, goOn: () => goOnWithTransaction() };
  }

  async function thawed(): Promise<void> {
    await expect.poll(() => asked).toContain('guest-fsfreeze-thaw');
  }

  async function recovered(agent: ScriptedPeer): Promise<void> {
    proxy.cut();
    proxy.reset();
    const machine = await connected(agent.address);
    expect((await machine.recover({ generation: null })).warnings).toEqual([]);
    expect(await left(machine)).toEqual([]);
  }

  test('is thawed although the process that guards it is killed', async () => {
    const agent = await agentThat(GOOD);
    const machine = await connected(agent.address);
    proxy.reset({
      before: ({ name }) => {
        asked.push(name);
        if (name === 'transaction') for (const pid of guardsOf()) process.kill(pid, 'SIGKILL');
      },
    });
    const session = await machine.backup();
    expect(asked).toContain('guest-fsfreeze-thaw');
    expect(session.point.frozen).toBe(false);
    await session.forget();
    expect(await left(machine)).toEqual([]);
  });

  test('is thawed although the process that guards it is stopped', async () => {
    const agent = await agentThat(GOOD);
    const machine = await connected(agent.address);
    const guards: number[] = [];
    proxy.reset({
      before: ({ name }) => {
        asked.push(name);
        if (name !== 'transaction') return;
        guards.push(...guardsOf());
        for (const pid of guards) process.kill(pid, 'SIGSTOP');
      },
    });
    const session = await machine.backup();
    expect(asked).toContain('guest-fsfreeze-thaw');
    expect(session.point.frozen).toBe(false);
    expect(session.warnings).toEqual([expect.stringContaining('as after a power cut')]);
    expect(guards).toHaveLength(1);
    expect(guardsOf()).toEqual([]);
    await session.forget();
    expect(await left(machine)).toEqual([]);
  });

  test('is thawed although the process that guards it is stopped while it freezes', async () => {
    const agent = await agentThat({
      ...GOOD,
      get 'guest-fsfreeze-freeze'() {
        for (const pid of guardsOf()) process.kill(pid, 'SIGSTOP');
        return 2;
      },
    });
    const { point, warnings } = await backUp(agent, { freezeTimeoutMs: 60_000 });
    expect(point.frozen).toBe(false);
    expect(warnings).toEqual([expect.stringContaining('said nothing for 5 s, and was killed')]);
    expect(asked.indexOf('guest-fsfreeze-thaw')).toBeLessThan(asked.indexOf('transaction'));
  });

  test.each([
    ['thawed by itself meanwhile', { ...GOOD, 'guest-fsfreeze-thaw': 0 }],
    ['has nothing that can be frozen', { 'guest-fsfreeze-freeze': 0, 'guest-fsfreeze-thaw': 0 }],
  ])('that %s is not said to have been frozen', async (_, answers) => {
    const { point, warnings } = await backUp(await agentThat(answers));
    expect(point.frozen).toBe(false);
    expect(warnings).toEqual([expect.stringContaining('as after a power cut')]);
    proxy.cut();
    const failing = backUp(await agentThat(answers), { freeze: 'require' });
    await expect(failing).rejects.toMatchObject({ code: 'ERR_MACHINE_NOT_FROZEN' });
  });

  test('is thawed at once when the process that froze it is killed', async () => {
    const agent = await agentThat(GOOD);
    const { child, exited } = await frozenChild(agent, 600_000);
    expect(asked).not.toContain('guest-fsfreeze-thaw');
    child.kill('SIGKILL');
    await exited;
    await thawed();
    await recovered(agent);
  });

  test('is thawed at its deadline when the process that froze it is stopped', async () => {
    const agent = await agentThat(GOOD);
    const { child, exited, goOn: release } = await frozenChild(agent, 100);
    child.kill('SIGSTOP');
    await thawed();
    release();
    child.kill('SIGCONT');
    // It finds out that the moment was not one of frozen file systems, which were required.
    expect((await exited)[0]).toBe(1);
    await recovered(agent);
  });

  test('is thawed at its deadline when QEMU takes too long, and that is told', async () => {
    const agent = await agentThat(GOOD);
    const machine = await connected(agent.address);
    proxy.reset({ before: ({ name }) => (name === 'transaction' ? thawed() : undefined) });
    const session = await machine.backup({ freezeDeadlineMs: 100, freezeTimeoutMs: 600_000 });
    expect(session.point.frozen).toBe(false);
    expect(session.warnings).toEqual([expect.stringContaining('longer than the guest may be')]);
    await session.forget();
  });

  test('that is still frozen because everybody has died is thawed by recovering', async () => {
    const agent = await agentThat(GOOD);
    const { child, exited } = await frozenChild(agent, 600_000);
    for (const pid of guardsOf(child.pid)) process.kill(pid, 'SIGKILL');
    child.kill('SIGKILL');
    await exited;
    expect(asked).not.toContain('guest-fsfreeze-thaw');
    await recovered(agent);
    expect(asked).toContain('guest-fsfreeze-thaw');
  });
});
