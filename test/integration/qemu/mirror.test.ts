/**
 * A replica is kept in step with the disk of a running machine, while a guest writes between every two commands and during
 * the copy. When a mirror ends as it should, the replica equals the disk, byte for byte; when it does not, it says so, and
 * the next one makes it equal.
 */
import { appendFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createQcow2, openDevice } from 'lacuna';
import { backupMachine, type MirrorOptions, type MirrorReport } from 'lacuna/qemu';
import { type Manifest, Repository } from 'lacuna/repository';
import { Random } from 'lacuna/testing';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { DISK_BYTES, type Relay } from '../../support/live-machine.js';
import { firstSeed } from '../../support/long-run.js';
import { MirroredMachine } from '../../support/mirrored-machine.js';
import { usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';

const peers = usePeers('suite');
const LONG = { timeout: 60_000 };
/** Granules of the disk. */
const PLACES = DISK_BYTES / 65536;

let machine: MirroredMachine;
let random: Random;

beforeEach(async () => {
  machine = await MirroredMachine.start(peers);
  random = new Random(firstSeed());
});

afterEach(async () => {
  await machine.live.stop();
});

/** One mirror until it has everything. */
async function mirrorOnce(options: Partial<MirrorOptions> = {}): Promise<MirrorReport> {
  await using connected = await machine.live.connect();
  return await connected.mirror({ ...machine.options, once: true, ...options });
}

async function bitmaps(): Promise<string[]> {
  return (await machine.live.leftovers()).sort();
}

describe('a mirror that ends as it should', () => {
  test('leaves an equal replica, one bitmap, and nothing else, whatever is written at every step', async () => {
    const { live, guest } = machine;
    await guest.scribble(random, 10);
    let from: Partial<MirrorOptions> = { bitmap: 'b0' };
    for (let round = 0; round < 4; round++) {
      // In every second round the guest also writes behind the end, which the next round has to bring.
      const isQuiet = round % 2 === 1;
      let atEnd: Buffer | undefined;
      const scribble = async () => {
        if (atEnd === undefined || !isQuiet) await guest.scribble(random, 2);
      };
      live.proxy.reset({
        before: async ({ name }) => {
          await scribble();
          if (name === 'block-job-cancel') atEnd = Buffer.from(guest.content);
        },
        after: scribble,
      });
      const report = await mirrorOnce(from);
      live.proxy.reset();
      expect(await bitmaps()).toEqual(['bitmap vda/b0', `bitmap vda/${report.bitmap}`].sort());
      expect(machine.state).toMatchObject({ phase: 'equal', bitmap: report.bitmap });
      if (isQuiet) await machine.expectReplica(atEnd!, `round ${round}`);
      from = {};
    }
  });

  test('needs only what was written since, the next time', async () => {
    await machine.guest.write(0, Buffer.alloc(2 ** 19, 7));
    expect((await mirrorOnce({ bitmap: 'b0' })).copiedBytes).toBe(2 ** 19);
    expect((await mirrorOnce()).copiedBytes).toBe(0);
    await machine.guest.write(65536, Buffer.from('x'));
    expect((await mirrorOnce()).copiedBytes).toBe(65536);
    await machine.expectReplica(machine.guest.content, 'at the end');
  });

  test('leaves to the next mirror what is written from its end on, each write in a place of its own', async () => {
    const { live, guest } = machine;
    let place = -1;
    live.proxy.reset({
      after: async ({ name }) => {
        if (name === 'block-job-cancel') place = 0;
        if (place < 0 || place === PLACES) return;
        await guest.write(65536 * place++, random.bytes(512));
      },
    });
    await mirrorOnce({ bitmap: 'b0' });
    live.proxy.reset();
    expect(place).toBeGreaterThan(1);
    await mirrorOnce();
    await machine.expectReplica(guest.content, 'at the end');
  });

  test('goes on until it is stopped, makes durable what it has written meanwhile, and says so', async () => {
    await using connected = await machine.live.connect();
    const job = connected.mirror({ ...machine.options, bitmap: 'b0', flushMs: 10 });
    await expect.poll(() => job.progress().phase, LONG).toBe('in step');
    await machine.guest.scribble(random, 5);
    await expect.poll(() => job.progress().durableWrites, LONG).toBeGreaterThan(0);
    await expect.poll(() => machine.state.durable?.writes ?? 0, LONG).toBeGreaterThan(0);
    expect(machine.state).toMatchObject({ phase: 'changing', bitmap: 'b0' });
    job.pause();
    await machine.guest.scribble(random, 5);
    job.resume();
    job.pause();
    await machine.guest.scribble(random, 5);
    const { content } = machine.guest;
    job.stop();
    const { equalAfter, equalBefore } = await job;
    await machine.expectReplica(content, 'at the end');
    expect(Date.parse(equalAfter)).toBeLessThanOrEqual(Date.parse(equalBefore));
  });

  test('copies all of a disk into a replica that holds something else', async () => {
    await machine.guest.scribble(random, 5);
    writeFileSync(machine.replica, Buffer.alloc(2 ** 20, 0xee));
    const report = await mirrorOnce({ full: true });
    await machine.expectReplica(machine.guest.content, 'at the end');
    expect(await bitmaps()).toEqual(['bitmap vda/b0', `bitmap vda/${report.bitmap}`].sort());
  });

  test('goes on over a monitor that was lost in the middle', async () => {
    await using connected = await machine.live.connect();
    const job = connected.mirror({ ...machine.options, bitmap: 'b0' });
    await expect.poll(() => job.progress().phase, LONG).toBe('in step');
    machine.live.proxy.cut();
    await machine.guest.scribble(random, 5);
    await expect.poll(() => connected.monitor.isConnected, LONG).toBe(true);
    job.stop();
    await job;
    await machine.expectReplica(machine.guest.content, 'at the end');
  });

  test('is a command as well', async () => {
    await machine.guest.scribble(random, 5);
    const { live, replica } = machine;
    const where = ['--qmp', live.proxy.path, '--nbd', `nbd+unix:///?socket=${live.nbd.path}`];
    const args = ['mirror', ...where, '--scratch', live.folder, '--disk', 'node:vda', '--once'];
    const first = await runCli([...args, '--bitmap', 'b0', replica]);
    expect(first).toMatchObject({ code: 0, stdout: expect.stringContaining('equals vda') });
    await machine.expectReplica(machine.guest.content, 'after the first');
    const second = await runCli([...args, '--json', replica]);
    expect(JSON.parse(second.stdout)).toMatchObject({ disk: 'vda', copiedBytes: 0 });
    expect(await runCli([...args, '--bitmap', 'b0', '--full', replica])).toMatchObject({ code: 2 });
  });
});

describe('a mirror that does not end as it should', () => {
  /** What is left must be caught up from the same bitmap. */
  async function expectCaughtUp(what: string): Promise<void> {
    expect(machine.state.phase, what).toBe('changing');
    await machine.guest.scribble(random, 2);
    await mirrorOnce();
    await machine.expectReplica(machine.guest.content, what);
    expect((await machine.live.leftovers()).filter((one) => !one.startsWith('bitmap'))).toEqual([]);
  }

  test('is caught up when it was killed at any step, and its bitmaps are taken away', async () => {
    const { live, guest } = machine;
    await mirrorOnce({ bitmap: 'b0' });
    const commands = live.proxy;
    const kinds = [
      ...['blockdev-mirror', 'block-export-add', 'block-dirty-bitmap-add', 'block-job-cancel'],
      'block-dirty-bitmap-remove',
    ];
    for (const kind of kinds) {
      await guest.scribble(random, 3);
      const child = machine.spawn({ once: true });
      let isDone = false;
      commands.reset({
        after: async ({ name }) => {
          await guest.scribble(random, 1);
          if (name !== kind || isDone) return;
          isDone = true;
          child.kill('SIGKILL');
          throw new Error('the child is dead');
        },
      });
      expect((await child.exited).signal, kind).toBe('SIGKILL');
      commands.reset();
      const { phase } = machine.state;
      await guest.scribble(random, 2);
      await mirrorOnce();
      await machine.expectReplica(guest.content, `${kind}, ${phase}`);
      const left = await live.leftovers();
      expect(
        left.filter((one) => one !== 'bitmap vda/b0'),
        kind,
      ).toEqual([`bitmap vda/${machine.state.bitmap}`]);
    }
  });

  test('does not keep the guest waiting: neither while its process is stopped, nor when it is killed', async () => {
    const { guest } = machine;
    const child = machine.spawn({ bitmap: 'b0' });
    await child.isIn('in step');
    child.kill('SIGSTOP');
    for (let i = 0; i < 20; i++) await guest.scribble(random, 2);
    child.kill('SIGKILL');
    await child.exited;
    for (let i = 0; i < 20; i++) await guest.scribble(random, 2);
    await expectCaughtUp('after the kill');
  });

  test('fails when its connection is cut, and does not keep the guest waiting', async () => {
    const { live, guest } = machine;
    let relay: Relay | undefined;
    live.proxy.reset({
      before: ({ name }) =>
        machine.relay(name, (one) => {
          relay = one;
        }),
    });
    await using connected = await live.connect();
    const job = connected.mirror({ ...machine.options, bitmap: 'b0' }).register();
    await expect.poll(() => job.progress().phase, LONG).toBe('in step');
    relay!.cut();
    await guest.scribble(random, 5);
    await expect(job).rejects.toMatchObject({ code: 'ERR_MIRROR_LOST', retryable: true });
    relay!.stop();
    live.proxy.reset();
    await connected.close();
    await expectCaughtUp('after the cut');
  });

  test('says that it is lost also where its connection is cut just before QEMU is told to end it', async () => {
    const { live, guest } = machine;
    let relay: Relay | undefined;
    live.proxy.reset({
      before: async ({ name }) => {
        await machine.relay(name, (one) => {
          relay = one;
        });
        if (name !== 'block-job-cancel') return;
        // QEMU notes the cut when it hands on the next write.
        relay!.cut();
        await guest.write(0, random.bytes(65536));
        const states = async () =>
          (await live.other.execute('query-jobs')).map((job) => job.status);
        await expect.poll(states, LONG).toEqual(['concluded']);
      },
    });
    await expect(mirrorOnce({ bitmap: 'b0' })).rejects.toMatchObject({ code: 'ERR_MIRROR_LOST' });
    relay!.stop();
    live.proxy.reset();
    await expectCaughtUp('after the cut');
  });

  test('says why the replica could not be written', async () => {
    const file = { driver: 'file' as const, filename: machine.replica };
    const target = {
      driver: 'error' as const,
      file,
      operations: ['write' as const],
      errno: 'ENOSPC',
    };
    await using connected = await machine.live.connect();
    const job = connected.mirror({ ...machine.options, bitmap: 'b0', target }).register();
    await expect.poll(() => job.progress().phase, LONG).toBe('in step');
    await machine.guest.write(0, random.bytes(65536));
    await expect(job).rejects.toMatchObject({
      code: 'ERR_MIRROR_LOST',
      message: expect.stringContaining('ENOSPC'),
    });
    await connected.close();
    await expectCaughtUp('after the failure');
  });

  test('fails when somebody ends its job, and when it is stopped before it is in step', async () => {
    const { live } = machine;
    await using connected = await live.connect();
    const job = connected.mirror({ ...machine.options, bitmap: 'b0' }).register();
    await expect.poll(() => job.progress().phase, LONG).toBe('in step');
    const [{ id }] = await live.other.execute('query-jobs');
    await live.other.execute('job-cancel', { id });
    await expect(job).rejects.toMatchObject({
      code: 'ERR_MIRROR_LOST',
      message: expect.stringContaining('begin the mirror again'),
    });
    const stopped = connected.mirror({ ...machine.options });
    stopped.stop();
    await expect(stopped).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    await connected.close();
    await expectCaughtUp('after both');
  });

  test('is refused after QEMU was killed, until all of the disk is copied', async () => {
    const { live, guest } = machine;
    await mirrorOnce({ bitmap: 'b0' });
    const child = machine.spawn({});
    await child.isIn('in step');
    await guest.scribble(random, 3);
    await live.stop('SIGKILL');
    child.kill('SIGKILL');
    await child.exited;
    await live.start();
    await expect(mirrorOnce()).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_BITMAP_(INCONSISTENT|UNKNOWN)$/),
      message: expect.stringContaining('(full)'),
    });
    await mirrorOnce({ full: true });
    await machine.expectReplica(machine.guest.content, 'after the full copy');
  });
});

describe('a mirror is refused', () => {
  test('where nothing says what the replica lacks, or something else', async () => {
    await expect(mirrorOnce()).rejects.toThrow(TypeError);
    await expect(mirrorOnce({ bitmap: 'b1' })).rejects.toMatchObject({
      code: 'ERR_BITMAP_UNKNOWN',
    });
    await expect(mirrorOnce({ bitmap: 'b0', disk: { node: 'vdx' } })).rejects.toMatchObject({
      code: 'ERR_MACHINE_DISK',
    });
    await mirrorOnce({ bitmap: 'b0' });
    await expect(mirrorOnce({ bitmap: 'b0' })).rejects.toMatchObject({
      code: 'ERR_REPLICA_MISMATCH',
      message: expect.stringContaining('leave out the bitmap'),
    });
  });

  test('where somebody has changed the replica, or its state cannot be read', async () => {
    await mirrorOnce({ bitmap: 'b0' });
    const bytes = readFileSync(machine.replica);
    bytes[0] ^= 1;
    writeFileSync(machine.replica, bytes);
    await expect(mirrorOnce()).rejects.toMatchObject({ code: 'ERR_REPLICA_MISMATCH' });
    appendFileSync(`${machine.replica}.replica`, '}');
    await expect(mirrorOnce()).rejects.toMatchObject({ code: 'ERR_REPLICA_MISMATCH' });
  });

  test('where the replica is of a restore point, or lies over one that its bitmap does not count from', async () => {
    const repository = Repository.open(join(machine.live.folder, '..', 'r'), { create: true });
    const { live, guest } = machine;
    const points: Manifest[] = [];
    for (let n = 0; n < 2; n++) {
      await guest.scribble(new Random(n));
      await using connected = await live.connect();
      const options = { machine: 'web', disks: live.choices };
      points.push((await backupMachine(repository, connected, options)).point);
    }
    const image = ({ disks }: Manifest) =>
      join(repository.path, 'machines/web/disks/vda', disks[0].file.name);
    const over = async (point: Manifest) => {
      const filename = join(machine.live.folder, '..', `over${point.number}.qcow2`);
      const backing = { filename: image(point), format: 'qcow2' };
      await createQcow2(filename, { size: DISK_BYTES, backing });
      const folders = { 'backing-folders': ['/'] };
      return { driver: 'qcow2', file: { driver: 'file', filename }, ...folders } as const;
    };
    const bitmap = points[1].disks[0].bitmap!;
    await expect(mirrorOnce({ bitmap, target: image(points[1]) })).rejects.toMatchObject({
      code: 'ERR_COPY_MISMATCH',
      message: expect.stringContaining('is an image of restore point 2 of web'),
    });
    await expect(mirrorOnce({ bitmap, target: await over(points[0]) })).rejects.toMatchObject({
      code: 'ERR_BITMAP_MISMATCH',
      message: expect.stringMatching(/lies over restore point 1 of web.*counts from 2/),
    });
    await guest.scribble(new Random(9));
    const target = await over(points[1]);
    for (const more of [{ bitmap }, {}]) {
      await mirrorOnce({ ...more, target });
      await using replica = await openDevice(target);
      const bytes = Buffer.alloc(replica.size);
      await replica.read(0, bytes);
      expect(bytes.equals(guest.content)).toBe(true);
      await guest.scribble(new Random(10));
    }
    const { problems } = await repository.verify();
    expect(problems).toEqual([]);
    // A replica needs what it lies over.
    await guest.scribble(new Random(11));
    await using connected = await live.connect();
    await backupMachine(repository, connected, { machine: 'web', disks: live.choices });
    const pruning = repository.prune({ machine: 'web', keep: { last: 1 } });
    await expect(pruning).rejects.toThrow(/over2\.qcow2 lies over point 2/);
  });

  test('where the replica has another size, or is the disk itself', async () => {
    truncateSync(machine.replica, 65536);
    await expect(mirrorOnce({ bitmap: 'b0' })).rejects.toMatchObject({ code: 'ERR_COPY_MISMATCH' });
    const target = machine.live.file('vda');
    await expect(mirrorOnce({ bitmap: 'b0', target })).rejects.toMatchObject({
      code: expect.stringMatching(/ERR_DEVICE_LOCKED|ERR_COPY_MISMATCH/),
    });
    expect(await bitmaps()).toEqual(['bitmap vda/b0']);
  });
});
