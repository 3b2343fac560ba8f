/**
 * Machines that move, between two processes of QEMU: the guest writes between every two commands, and afterwards the disks on
 * the destination are compared byte for byte, the source's are as they were at the switch, and the next increment is exact.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { openDevice } from 'lacuna';
import type { LacunaError } from 'lacuna/errors';
import type { Machine, MigrateReport } from 'lacuna/qemu';
import { Random } from 'lacuna/testing';
import { describe, expect, onTestFinished, test } from 'vitest';
import { firstSeed, runsOr } from '../../support/long-run.js';
import { DISK_BYTES, MovingMachine } from '../../support/moving-machine.js';
import { run, usePeers } from '../../support/peers.js';

const peers = usePeers();

async function started(disks = 1): Promise<{ moving: MovingMachine; machine: Machine }> {
  const moving = await MovingMachine.start(peers, disks);
  await moving.await();
  const machine = await moving.connect();
  onTestFinished(() => machine.close());
  return { moving, machine };
}

async function readImage(path: string): Promise<Buffer> {
  await using device = await openDevice(path, { forceShare: true });
  const bytes = Buffer.alloc(DISK_BYTES);
  await device.read(0, bytes);
  return bytes;
}

async function failureOf(job: PromiseLike<unknown>): Promise<LacunaError> {
  try {
    await job;
  } catch (error) {
    return error as LacunaError;
  }
  return expect.fail('it did not fail');
}

const digestOf = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');

/** Backs up what has changed since the backup that the machine was moved by, and checks that it makes up what it holds now. */
async function checkNextIncrement(moving: MovingMachine): Promise<void> {
  const machine = await moving.connect();
  const session = await machine.backup({ base: moving.generation });
  for (const disk of session.disks) {
    expect(disk.reason).toContain('has marked every write since');
    const image = await readImage(moving.base(disk.name));
    let bytes = 0;
    for await (const { offset, length, data } of disk.extents()) {
      image.set(data ?? Buffer.alloc(length), offset);
      bytes += length;
    }
    expect(image.equals(moving.content[disk.name]), disk.name).toBe(true);
    expect(bytes).toBeLessThanOrEqual(moving.dirty[disk.name].size * 65536);
  }
  await session.fail();
  await machine.close();
}

/** After the machine has moved. */
async function checkMoved(moving: MovingMachine, report: MigrateReport): Promise<void> {
  const { source, destination, names } = moving;
  expect(report).toMatchObject({ isRunning: true, warnings: [] });
  expect(report.pauseMs).toBeGreaterThan(0);
  expect(await moving.isRunning(destination)).toBe(true);
  await source.qemu.stop();
  expect(await moving.leftovers(destination)).toEqual([]);
  const before: string[] = [];
  for (const name of names) {
    const { [name]: file } = source.images;
    expect((await readImage(file)).equals(moving.content[name]), `source of ${name}`).toBe(true);
    before.push(digestOf(file));
    const there = await moving.read(destination, name);
    expect(there.equals(moving.content[name]), `destination of ${name}`).toBe(true);
  }
  await moving.moved();
  await moving.scribble(new Random(2));
  await checkNextIncrement(moving);
  expect(names.map((name) => digestOf(source.images[name]))).toEqual(before);
  for (const name of names) {
    const checked = await run('qemu-img', ['check', '-U', destination.images[name]]);
    expect(checked).toContain('No errors were found');
  }
}

test('a machine moves with its disks, whatever its guest writes between two commands', async () => {
  const moving = await MovingMachine.start(peers, 2);
  for (let turn = 0; turn < runsOr(2); turn++) {
    const random = new Random(firstSeed() + turn);
    await moving.await();
    await moving.scribble(random, 4);
    const machine = await moving.connect();
    let moved = 0;
    let calm = 2;
    moving.source.proxy.reset({
      before: async ({ name }) => {
        // With each round it writes less, or it would not be moved.
        if (name === 'nbd-server-start') calm *= 4;
        // A guest that stands still writes nothing.
        if (random.below(calm) === 0 && (await moving.isRunning(moving.source))) {
          await moving.scribble(random, 1);
          moved += 2 * 2 * 65536;
        }
      },
    });
    const dirty = moving.dirtyBytes;
    const report = await machine.migrate({ ...moving.move, leaveBytes: 12 * 65536 });
    await machine.close();
    moving.source.proxy.reset();
    const { rounds } = report;
    expect(rounds.length).toBeGreaterThan(1);
    const bytes = rounds.reduce((sum, one) => sum + one.movedBytes + one.zeroedBytes, 0);
    expect(bytes).toBeLessThanOrEqual(dirty + moved);
    expect(rounds.at(-1)!.leftBytes).toBe(0);
    await checkMoved(moving, report);
  }
});

describe('a plan', () => {
  test('says how much will move, and changes nothing', async () => {
    const { moving, machine } = await started();
    await moving.write('vda', 5 * 65536, 100, 7);
    // Somebody else's, and one that a migration that has died has left.
    const left = 'lacuna-migrate.0123abcd.1@vda';
    for (const name of ['own', left]) {
      await moving.source.other.execute('block-dirty-bitmap-add', { node: 'vda', name });
    }
    moving.source.proxy.reset();
    const { destination, bitmap, targets } = moving.move;
    const plan = await machine.planMigration({ destination, bitmap, targets });
    expect(plan).toMatchObject({
      disks: [
        {
          ...{ name: 'vda', target: targets.vda, size: DISK_BYTES, dirtyBytes: 65536 },
          ...{ bitmap: `lacuna-${bitmap}@vda`, carriesBitmap: true, otherBitmaps: ['own'] },
        },
      ],
      memoryBytes: 16 * 2 ** 20,
      obstacles: [],
    });
    expect(moving.source.proxy.passed.filter((name) => !name.startsWith('query-'))).toEqual(
      moving.source.proxy.passed.filter((name) => name === 'x-debug-query-block-graph'),
    );
    expect(await moving.leftovers()).toEqual([`bitmap vda/${left}`, 'bitmap vda/own']);
    expect(await moving.leftovers(moving.destination)).toEqual([
      `no bitmap vda/lacuna-${bitmap}@vda`,
    ]);
  });
});

test('capabilities for migrations of another kind are in the way of a migration', async () => {
  const { moving, machine } = await started();
  const { destination, bitmap, targets } = moving.move;
  const set = (capability: string, state: boolean) => {
    const capabilities = [{ capability, state }];
    return moving.source.other.execute('migrate-set-capabilities', { capabilities });
  };
  const has = await moving.source.other.execute('query-migrate-capabilities');
  const all = ['dirty-bitmaps', 'block', 'multifd', 'background-snapshot'];
  // QEMU 9.1 and later move no disks themselves.
  const known = all.filter((name) => has.some(({ capability }) => capability === name));
  expect(known.length).toBeGreaterThanOrEqual(3);
  for (const capability of known) {
    await set(capability, true);
    const plan = await machine.planMigration({ destination, bitmap, targets });
    expect(plan.obstacles).toEqual([
      expect.stringContaining(`capability "${capability}" of the source is on`),
    ]);
    await expect(machine.migrate(moving.move)).rejects.toMatchObject({ code: 'ERR_MACHINE_BUSY' });
    await set(capability, false);
  }
  expect(await machine.migrate(moving.move)).toMatchObject({ isRunning: true });
});

describe('a migration is refused before it changes anything', () => {
  test('where something is in the way, or is not what was said', async () => {
    const { moving, machine } = await started();
    const { move, source } = moving;
    const elsewhere = moving.base('vda');
    const node = { node: 'vda', name: `lacuna-${moving.generation}@vda` };
    const refused = [
      [{ bitmap: 'b9' }, 'ERR_BITMAP_UNKNOWN', 'has no bitmap "b9"'],
      [{ targets: { vdz: '/x' } }, 'ERR_MACHINE_DISK', 'no disk "vdz"'],
      [{ targets: { vda: elsewhere } }, 'ERR_MACHINE_DISK', 'the disk vda of the destination is'],
      [{ destination: { path: '/nowhere' } }, 'ERR_QMP_DISCONNECTED', 'cannot connect'],
    ] as const;
    for (const [options, code, message] of refused) {
      const failure = await failureOf(machine.migrate({ ...move, ...options }));
      expect(failure).toMatchObject({ code, message: expect.stringContaining(message) });
    }
    await source.other.execute('block-dirty-bitmap-disable', node);
    await expect(machine.migrate(move)).rejects.toMatchObject({ code: 'ERR_BITMAP_INCONSISTENT' });
    await source.other.execute('block-dirty-bitmap-enable', node);
    const { source: running } = await MovingMachine.start(peers);
    const there = { destination: { path: running.qemu.server.path }, targets: running.images };
    const busy = await failureOf(machine.migrate({ ...move, ...there }));
    expect(busy).toMatchObject({ code: 'ERR_MACHINE_BUSY' });
    expect(busy.message).toContain('start it with -incoming defer');
    expect(() => machine.migrate({ ...move, targets: {} })).toThrow(/at least one disk/);
    expect(() => machine.migrate({ ...move, scratchBytes: 5 })).toThrow(/must be 1 MiB or more/);
    expect(() => machine.migrate({ ...move, stream: 'exec:rm' })).toThrow(/tcp:HOST:PORT/);
    expect(await moving.leftovers()).toEqual([]);
    expect(await moving.isRunning(source)).toBe(true);
  });
});

test('a guest that writes as fast as it is copied is not moved, and goes on', async () => {
  const { moving, machine } = await started();
  moving.source.proxy.reset({
    before: async ({ name }) => {
      // In each round, behind its point in time.
      if (name === 'block-export-add') await moving.write('vda', 4 * 65536, 4 * 65536, 9);
    },
  });
  const failure = await failureOf(machine.migrate({ ...moving.move, leaveBytes: 0 }));
  expect(failure).toMatchObject({ code: 'ERR_MIGRATION_FAILED', retryable: true });
  expect(failure.message).toContain('the guest writes as fast as it is copied: 262144 bytes');
  expect(await moving.isRunning(moving.source)).toBe(true);
  expect(await moving.leftovers()).toEqual([]);
});

test('a machine that stands still moves, and stands still on the other side', async () => {
  const { moving, machine } = await started();
  await moving.source.other.execute('stop');
  await moving.write('vda', 0, 100, 3);
  const report = await machine.migrate(moving.move);
  expect(report).toMatchObject({ isRunning: false, warnings: [] });
  expect(report).not.toHaveProperty('pauseMs');
  expect(await moving.isRunning(moving.destination)).toBe(false);
  const bytes = await moving.read(moving.destination, 'vda');
  expect(bytes.equals(moving.content.vda)).toBe(true);
});

test('an image that somebody else holds for a moment only delays the destination', async () => {
  const { moving, machine } = await started();
  const { source, destination } = moving;
  const image = destination.images.vda;
  let held: AsyncDisposable | undefined;
  source.proxy.reset({
    before: async ({ name }) => {
      if (name !== 'migrate-continue') return;
      const file = { driver: 'file' as const, filename: image };
      held = await openDevice(file, { writable: true });
    },
  });
  let refusals = 0;
  destination.proxy.reset({
    after: async ({ name }) => {
      // The destination could not open its image, and neither side runs.
      if (name !== 'cont' || ++refusals > 1) return;
      expect(await moving.isRunning(source)).toBe(false);
      expect(await moving.isRunning(destination)).toBe(false);
      await held![Symbol.asyncDispose]();
    },
  });
  await checkMoved(moving, await machine.migrate(moving.move));
  expect(refusals).toBeGreaterThan(1);
});
