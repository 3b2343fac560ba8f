/**
 * QEMU pushes its disks into a process of ours. Where QEMU cannot, that is said before anything is changed; where it can, what
 * becomes of that process is no matter of the guest's.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { createRawFile, openDevice } from 'lacuna';
import { Bitmap } from 'lacuna/bitmap';
import { type BackupSession, backupMachine, type Machine } from 'lacuna/qemu';
import { Repository } from 'lacuna/repository';
import { Random } from 'lacuna/testing';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Landing, landedDevice, viewBelow } from '#dist/qemu/push/index.js';
import { DISK_BYTES, fetchModes, GRANULE, LiveMachine } from '../../support/live-machine.js';
import { usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';

const CHILD = fileURLToPath(new URL('backup-child.mjs', import.meta.url));

const peers = usePeers('suite');
const random = new Random(1);
/** The daemons of these tests that can push, and those that cannot. */
const [can, cannot] = fetchModes().includes('push') ? [['8.0'], []] : [[], ['7.2']];

test.each(cannot)('QEMU %s is told why it cannot push, and nothing is changed', async () => {
  const live = await LiveMachine.start(peers);
  await using machine = await live.connect();
  const refused = {
    code: 'ERR_QMP_UNSUPPORTED',
    message: expect.stringMatching(
      /QEMU can push a view from 8\.0 on only, and this is 7\.2\.\d+, .*: fetch by pull/,
    ),
  };
  const options = { disks: live.choices, fetch: 'push' } as const;
  await expect(machine.plan(options)).rejects.toMatchObject(refused);
  await expect(machine.backup(options)).rejects.toMatchObject(refused);
  const repository = Repository.open(join(live.folder, '..', 'repository'), { create: true });
  const job = backupMachine(repository, machine, { ...options, machine: 'web' });
  await expect(job).rejects.toMatchObject(refused);
  expect(live.proxy.passed.filter((name) => !name.startsWith('query-'))).toEqual([]);
  expect(await live.leftovers()).toEqual([]);
  await live.stop();
});

describe('what QEMU writes to', () => {
  const SIZE = 3 * GRANULE + 512;
  let landing: Landing;
  let folder: string;
  let lost: Error[];
  let runs = 0;

  async function start(mostBytes: number): Promise<void> {
    folder = join(await peers.folder(), `landing${runs++}`);
    mkdirSync(folder);
    lost = [];
    const disks = ['a', 'b'].map((name) => ({ file: join(folder, name), size: SIZE }));
    for (const { file } of disks) await createRawFile(file, SIZE);
    const socket = join(folder, 's');
    landing = await Landing.start({ socket, disks, mostBytes }, (failure) => lost.push(failure));
  }

  afterEach(async () => {
    await landing.close();
    landing.free();
  });

  const connect = (disk: number) => {
    const server = { type: 'unix', path: landing.socket } as const;
    return openDevice({ driver: 'nbd', server, export: `${disk}` }, { writable: true });
  };

  test('tells data, zeroes and what was not written apart, and has the bytes of all', async () => {
    await start(SIZE);
    const context = 'qemu:dirty-bitmap:b';
    const writer = await connect(1);
    await writer.write(GRANULE, Buffer.alloc(GRANULE, 7));
    await writer.zero(2 * GRANULE, GRANULE);
    await writer.write(3 * GRANULE, Buffer.alloc(512, 9));
    await writer.close();
    await landing.settle();
    // All of a disk must land, or of an increment what has changed.
    expect(landing.ranges.map(({ missingBytes }) => missingBytes)).toEqual([SIZE, GRANULE]);
    const progress = { doneBytes: SIZE - GRANULE, totalBytes: 2 * SIZE };
    expect(landing.progress).toEqual(progress);
    using changes = new Bitmap({ size: SIZE, granularity: 2 * GRANULE });
    changes.set(2 * GRANULE, 1);
    landing.ranges[1].want(changes);
    expect(landing.ranges[1].missingBytes).toBe(0);
    expect(landing.ranges[1].progress).toEqual({
      doneBytes: GRANULE + 512,
      totalBytes: GRANULE + 512,
    });
    await landing.close();
    // What was not written is as in the view, whose other parts may not be read any more.
    const view = { driver: 'file', filename: join(folder, 'view') } as const;
    writeFileSync(view.filename, Buffer.alloc(SIZE, 5));
    const below = await viewBelow(await openDevice(view));
    const place = { file: join(folder, 'b'), size: SIZE, ranges: landing.ranges[1] };
    const arrival = Promise.resolve();
    await using device = landedDevice({ ...place, context, below, arrival });
    const [status, dirty] = await Promise.all(
      ['base:allocation', context].map((one) => device.extents(0, SIZE, { contexts: [one] })),
    );
    const seen = (list: Iterable<{ length: number; flags: number }>) =>
      [...list].map(({ length, flags }) => [length, flags]);
    expect(seen(status[0])).toEqual([
      [2 * GRANULE, 1],
      [GRANULE, 6],
      [512, 1],
    ]);
    expect(seen(dirty[0])).toEqual([
      [GRANULE, 0],
      [2 * GRANULE + 512, 1],
    ]);
    const bytes = Buffer.alloc(SIZE);
    await device.read(0, bytes);
    const expected = Buffer.alloc(SIZE);
    expected
      .fill(5, 0, GRANULE)
      .fill(7, GRANULE, 2 * GRANULE)
      .fill(9, 3 * GRANULE);
    expect(bytes.equals(expected)).toBe(true);
    expect(lost).toEqual([]);
  });

  test('goes on quietly when QEMU still writes for a backup that is given up', async () => {
    await start(SIZE);
    const { progress } = landing;
    landing.free();
    const writer = await connect(0);
    await writer.write(0, Buffer.alloc(GRANULE, 1));
    await writer.close();
    await landing.settle();
    expect(lost).toEqual([]);
    // Who shows how far it was may ask once more.
    expect(landing.progress).toEqual(progress);
  });

  test('refuses a part of a granule, which would be taken for all of it', async () => {
    await start(SIZE);
    const writer = await connect(0);
    await expect(writer.write(512, Buffer.alloc(512))).rejects.toThrow();
    await writer.close();
    await expect.poll(() => lost).toMatchObject([{ code: 'ERR_PUSH_FAILED', offset: 512 }]);
  });

  test('refuses what there is no room for, of all disks together, and says so', async () => {
    await start(GRANULE + 512);
    for (const disk of [0, 1]) {
      const writer = await connect(disk);
      const written = writer.write(0, Buffer.alloc(GRANULE, 1));
      if (disk === 0) await written;
      else await expect(written).rejects.toMatchObject({ errno: 'ENOSPC' });
      await writer.close();
    }
    await expect.poll(() => lost).toMatchObject([{ code: 'ERR_SCRATCH_FULL' }]);
    await expect(landing.settle()).rejects.toMatchObject({ code: 'ERR_SCRATCH_FULL' });
  });

  test('ends with the process that began it, and is killed where it is stopped', async () => {
    await start(SIZE);
    const [pid] = landingsOf(process.pid);
    process.kill(pid, 'SIGSTOP');
    await expect
      .poll(() => lost)
      .toMatchObject([
        { message: expect.stringContaining('said nothing for 5 s, and was killed') },
      ]);
    await landing.close();
    expect(landingsOf(process.pid)).toEqual([]);
  });

  test('waits for what has not arrived, and tells why it will not', async () => {
    await start(SIZE);
    const [ranges] = landing.ranges;
    let fail!: (error: Error) => void;
    const arrival = new Promise<void>((_, reject) => {
      fail = reject;
    });
    const place = { file: join(folder, 'a'), size: SIZE };
    await using device = landedDevice({ ...place, ranges, arrival });
    const reading = device.read(0, Buffer.alloc(1));
    await expect(
      device.read(0, Buffer.alloc(1), { signal: AbortSignal.abort() }),
    ).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    fail(new Error('it was lost'));
    await expect(reading).rejects.toThrow('it was lost');
  });
});

describe.each(can)('a push of QEMU %s or later', () => {
  let live: LiveMachine;
  let machine: Machine;
  let generation: string | undefined;
  let content: Buffer[];

  beforeEach(async () => {
    live = await LiveMachine.start(peers, { disks: 2 });
    machine = await live.connect();
    generation = undefined;
    for (const guest of live.guests) await guest.scribble(random, 8);
  });
  afterEach(async () => {
    await machine.close();
    await live.stop();
  });

  /** Calls `then` when QEMU is told to push: its jobs begin, and nobody has read what they write. */
  function whenPushed(then: () => Promise<void> | void): void {
    let transactions = 0;
    live.proxy.reset({
      before: async ({ name }) => {
        if (name !== 'transaction') return;
        if (transactions++ > 0) await then();
        else content = live.guests.map((guest) => Buffer.from(guest.content));
      },
    });
  }

  const begin = (more: object = {}) =>
    machine.backup({ ...{ disks: live.choices, fetch: 'push', base: generation }, ...more });

  async function guestsWrite(): Promise<void> {
    for (const guest of live.guests) await guest.scribble(random, 4);
  }

  async function expectRight(session: BackupSession): Promise<void> {
    for (const [index, disk] of session.disks.entries()) {
      const image = Buffer.alloc(DISK_BYTES);
      for await (const { offset, data } of disk.extents()) if (data) image.set(data, offset);
      expect(image.equals(content[index]), disk.name).toBe(true);
    }
    if (session.disks.every(({ mode }) => mode === 'full')) {
      // The view ends as soon as all has landed, which is no loss of it.
      await expect.poll(() => live.other.execute('query-jobs')).toEqual([]);
    }
    await session.check();
    const { point, warnings } = await session.finish(() => {});
    expect(warnings).toEqual([]);
    ({ generation } = point);
    expect(await live.leftovers()).toEqual(live.bitmapsOf(generation));
  }

  async function expectFailed(session: BackupSession): Promise<void> {
    await expect(session.disks[0].totals()).rejects.toMatchObject({ code: 'ERR_PUSH_FAILED' });
    await guestsWrite();
    await session.fail();
    expect(await live.leftovers()).toEqual(live.bitmapsOf(generation));
    whenPushed(() => {});
    await expectRight(await begin());
  }

  test('goes on while the process that began it is stopped, and a guest writes while everything is', async () => {
    const given = { machine: live.options, disks: live.choices, size: DISK_BYTES };
    const store = join(live.folder, '..', 'store');
    mkdirSync(store);
    // A monitor has one client.
    await machine.close();
    const argument = JSON.stringify({ ...given, store, backup: { fetch: 'push' } });
    const child = spawn(process.execPath, [CHILD, argument], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const exited = once(child, 'exit');
    let landings: number[] = [];
    const stopped = new Promise<void>((resolve) => {
      whenPushed(() => {
        landings = landingsOf(child.pid!);
        for (const pid of [child.pid!, ...landings]) process.kill(pid, 'SIGSTOP');
        resolve();
      });
    });
    answerAll(child);
    await Promise.race([stopped, exited]);
    expect(landings).toHaveLength(1);
    const job = /^lacuna-[0-9a-f]{8}-p0$/;
    const pushes = async () =>
      (await live.other.execute('query-jobs')).filter(({ id }) => job.test(id));
    await expect.poll(pushes).toMatchObject([{ status: 'running' }]);
    // Nobody answers QEMU, and the guest does not notice.
    for (let i = 0; i < 10; i++) await guestsWrite();
    expect(await pushes()).toMatchObject([{ status: 'running' }]);
    process.kill(landings[0], 'SIGCONT');
    // The process that began it is still stopped.
    await expect.poll(pushes).toMatchObject([{ status: 'concluded' }]);
    child.kill('SIGCONT');
    const [code] = await exited;
    expect(code).toBe(0);
    const manifest = JSON.parse(readFileSync(join(store, 'manifest.json'), 'utf8'));
    for (const [index, name] of live.names.entries()) {
      expect(readFileSync(manifest.images[name]).equals(content[index]), name).toBe(true);
    }
  });

  test('fails where its server is stopped, and changes of the graph do not wait for it for ever', async () => {
    whenPushed(() => {
      for (const pid of landingsOf(process.pid)) process.kill(pid, 'SIGSTOP');
    });
    const session = await begin();
    await guestsWrite();
    await live.other.execute('blockdev-add', {
      ...{ driver: 'null-co', 'node-name': 'other', size: 65536 },
    });
    // QEMU waits here until the server is killed, and so does the guest.
    await live.other.execute('blockdev-add', {
      ...{ driver: 'raw', 'node-name': 'another', file: 'other' },
    });
    for (const name of ['another', 'other']) {
      await live.other.execute('blockdev-del', { 'node-name': name });
    }
    await expectFailed(session);
  });

  test('fails where its server is killed, and the next is right', async () => {
    whenPushed(() => {
      for (const pid of landingsOf(process.pid)) process.kill(pid, 'SIGKILL');
    });
    await expectFailed(await begin({ pushRate: 1 }));
  });

  test('fails where somebody ends its job', async () => {
    const session = await begin({ pushRate: 1 });
    const jobs = await live.other.execute('query-jobs');
    const { id } = jobs.find((one) => /-p1$/.test(one.id))!;
    await live.other.execute('job-cancel', { id });
    await expectFailed(session);
  });

  test('fails where a job has ended without all that has changed', async () => {
    whenPushed(() => {});
    await expectRight(await begin());
    await guestsWrite();
    whenPushed(async () => {
      // The copy that the job is going to take; how much that was is known here by now.
      const nodes = await live.other.execute('query-named-block-nodes');
      const { 'node-name': node, 'dirty-bitmaps': bitmaps } = nodes.find((one) =>
        /^lacuna-[0-9a-f]{8}-a1$/.test(one['node-name'] ?? ''),
      )!;
      await live.other.execute('block-dirty-bitmap-clear', { node, name: bitmaps![0].name });
    });
    const session = await begin();
    await expect(session.disks[0].totals()).rejects.toMatchObject({
      code: 'ERR_PUSH_FAILED',
      message: expect.stringMatching(
        /its job for vdb has ended, and \d+ bytes of it were not written/,
      ),
    });
    await session.fail();
    expect(await live.leftovers()).toEqual(live.bitmapsOf(generation));
  });

  test('is undone where QEMU refuses to begin it', async () => {
    whenPushed(() => {
      for (const pid of landingsOf(process.pid)) process.kill(pid, 'SIGKILL');
    });
    const before = live.proxy.hooks.before!;
    live.proxy.hooks = {
      before: async (command) => {
        await before(command);
        if (command.name === 'query-qmp-schema') return;
        // The server is gone before QEMU connects.
        if (command.name === 'block-set-write-threshold') {
          for (const pid of landingsOf(process.pid)) process.kill(pid, 'SIGKILL');
        }
      },
    };
    await expect(begin()).rejects.toMatchObject({
      code: 'ERR_PUSH_FAILED',
      message: expect.stringContaining('the process that QEMU pushes to is gone'),
    });
    expect(await live.leftovers()).toEqual([]);
    expect(landingsOf(process.pid)).toEqual([]);
  });

  test('ends the view before anything is stored, and the guest pays no longer', async () => {
    whenPushed(() => {});
    const session = await begin();
    await session.disks[0].totals();
    const inQemu = async () =>
      (await live.leftovers()).filter((one) => !/^(bitmap|file) /.test(one));
    await expect.poll(inQemu).toEqual([]);
    await guestsWrite();
    await expectRight(session);
  });

  test('follows the rate that it is told, stands while it is paused, and says what has landed', async () => {
    whenPushed(() => {});
    const session = await begin({ pushRate: 1 });
    const push = session.push!;
    const totalBytes = 2 * DISK_BYTES;
    const speeds = async () =>
      (await live.other.execute('query-block-jobs'))
        .filter(({ device }) => /-p\d$/.test(device))
        .map(({ speed }) => speed);
    expect(await speeds()).toEqual([1, 1]);
    push.setRate(7);
    await expect.poll(speeds).toEqual([4, 4]);
    expect(push.progress()).toMatchObject({ totalBytes });
    expect(push.progress().doneBytes).toBeLessThan(totalBytes);
    push.pause();
    const pushes = async () =>
      (await live.other.execute('query-jobs')).filter(({ id }) => /-p\d$/.test(id));
    await expect.poll(pushes).toMatchObject([{ status: 'paused' }, { status: 'paused' }]);
    push.setRate(undefined);
    await expect.poll(speeds).toEqual([0, 0]);
    const { doneBytes } = push.progress();
    await guestsWrite();
    expect(push.progress()).toEqual({ doneBytes, totalBytes });
    push.resume();
    await session.disks[0].totals();
    expect(push.progress()).toEqual({ doneBytes: totalBytes, totalBytes });
    await expectRight(session);
    expect(push.progress()).toEqual({ doneBytes: totalBytes, totalBytes });
  });

  test('shows how far it is in the job of a backup, which changes its rate, and may stop', async () => {
    const repository = Repository.open(join(live.folder, '..', 'steered'), { create: true });
    const options = { machine: 'web', disks: live.choices, fetch: 'push' } as const;
    const stopped = backupMachine(repository, machine, { ...options, rate: 1 });
    await expect.poll(() => stopped.progress().step).toBe('push');
    stopped.stop();
    await expect(stopped).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    expect(await live.leftovers()).toEqual([]);
    const job = backupMachine(repository, machine, { ...options, rate: 1 });
    await expect.poll(() => job.progress().step).toBe('push');
    const begun = job.progress();
    expect(begun).toMatchObject({ totalBytes: 2 * DISK_BYTES });
    expect(begun.doneBytes).toBeLessThan(begun.totalBytes);
    job.pause();
    job.setRate(undefined);
    job.resume();
    const { disks } = await job;
    const stored = disks.reduce((bytes, { movedBytes }) => bytes + movedBytes, 0);
    const { doneBytes, totalBytes } = job.progress();
    expect(doneBytes).toBe(totalBytes);
    expect(doneBytes).toBeGreaterThanOrEqual(2 * DISK_BYTES + stored);
  });

  test('can be given up while it goes on, and while it is paused', async () => {
    const session = await begin({ pushRate: 1 });
    const reading = session.disks[0].totals();
    const told = expect(reading).rejects.toMatchObject({ code: expect.stringMatching(/^ERR_/) });
    session.push!.pause();
    await expect
      .poll(() => live.other.execute('query-jobs'))
      .toContainEqual(expect.objectContaining({ status: 'paused' }));
    await session.fail();
    await told;
    expect(await live.leftovers()).toEqual([]);
    expect(landingsOf(process.pid)).toEqual([]);
  });

  test('goes into a repository, in full and as an increment, by the command as well', async () => {
    const path = join(live.folder, '..', 'repository');
    const disks = ['--disk', 'node:vda', '--disk', 'node:vdb'];
    const nbd = ['--nbd', `nbd+unix:///?socket=${live.nbd.path}`];
    const args = ['--qmp', live.proxy.path, ...nbd, '--machine', 'web', '--mode', 'push', ...disks];
    await machine.close();
    const planned = await runCli(['backup', ...args, '--plan', path]);
    expect(planned.stdout).toMatch(/for scratch images and what QEMU pushes\.\n$/);
    for (const mode of ['full', 'given']) {
      const { code, stdout, stderr } = await runCli(['backup', ...args, '--json', path]);
      expect(stderr).not.toContain('warning');
      expect(code).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({ disks: [{ mode }, { mode }] });
      for (const [index, name] of live.names.entries()) {
        const restored = join(live.folder, '..', `${mode}.${name}.raw`);
        await runCli(['restore', '--disk', name, path, 'latest', restored]);
        expect(readFileSync(restored).equals(live.guests[index].content), name).toBe(true);
      }
      await guestsWrite();
    }
    machine = await live.connect();
  });
});

/** The processes that QEMU pushes to, of a process. */
function landingsOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const [, , ppid] = /\) (\S) (\d+)/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))!;
        if (Number(ppid) !== parent) return false;
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('landing-process');
      } catch {
        // It has ended.
        return false;
      }
    });
}

/** Lets a child go on at each of its phases. */
function answerAll(child: ChildProcess): void {
  createInterface({ input: child.stdout! }).on('line', () => child.stdin!.write('\n'));
  child.stdin!.on('error', () => {});
}
