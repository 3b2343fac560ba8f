import { createQcow2 } from 'lacuna';
import { Graph, type MirrorJob, type MirrorOptions, type Root } from 'lacuna/graph';
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { LacunaError } from '#dist/errors/index.js';
import { MirroredDisk } from '#dist/graph/filters/mirrored-disk.js';
import { Arena } from '#dist/wasm/index.js';
import { fillArena } from '../../support/full-arena.js';
import { ManualDisk, settled } from '../../support/manual-disk.js';
import { filled, G, MirrorSetup, ready, SIZE } from '../../support/mirrored-disk.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

let graph: Graph;
let guest: Root;
let disk: ManualDisk;
let target: ManualDisk;

async function setUp(drainLimitMs?: number): Promise<void> {
  ({ graph, guest, disk, target } = await MirrorSetup.make({ drainLimitMs }));
}

beforeEach(() => setUp());

const run = (options: Partial<MirrorOptions> = {}): MirrorJob =>
  graph.mirror({ node: 'disk', target: 'target', ...options });

const until = async (isSo: () => boolean): Promise<void> => {
  while (!isSo()) await settled();
};

const heldBy = (one: ManualDisk, what: string) => one.held.find((request) => request.what === what);

const SIDE_BY_SIDE = [{ parent: 'guest', child: 'root', node: 'disk' }];

describe('a mirror that has ended', () => {
  test('tells its report to one who asks it to complete once more', async () => {
    const job = run();
    await ready(job);
    const report = await job.complete();
    expect(await job.complete()).toEqual(report);
  });

  test('tells why it has failed to one who asks it to complete, or to be cancelled', async () => {
    const job = run();
    await ready(job);
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    await expect(job.complete()).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    await expect(job.cancel()).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
  });
});

test('tells its progress while the target is closed', async () => {
  await createQcow2('target.qcow2', { size: SIZE });
  const filename = 'target.qcow2';
  const job = run({ target: { driver: 'qcow2', file: { driver: 'file', filename } } });
  await ready(job);
  let isDone = false;
  const cancelled = job.cancel().finally(() => {
    isDone = true;
  });
  while (!isDone) {
    expect(job.progress().dirtyBytes).toBe(0);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await cancelled;
});

describe('a mirror that is told to complete while its target fails', () => {
  test.each(['flush', 'write'] as const)('says so as the target does: %s', async (what) => {
    const job = run();
    await ready(job);
    target.isFree = false;
    if (what === 'write') {
      job.pause();
      await guest.write(0, filled(5));
      job.resume();
    }
    const completed = job.complete();
    completed.catch(() => {});
    await until(() => target.held.length > 0);
    target.held[0].fail(false);
    target.isFree = true;
    const failure = expect(completed).rejects;
    await failure.toMatchObject({ code: 'ERR_DEVICE_IO' });
    await job.complete();
    expect(Buffer.compare(target.bytes, disk.bytes)).toBe(0);
  });
});

test('one who has asked it to complete is told at once that the limit is over, while the target still hangs', async () => {
  await setUp(50);
  const job = run();
  await ready(job);
  target.isFree = false;
  await expect(job.complete()).rejects.toMatchObject({ code: 'ERR_GRAPH_BUSY' });
  await guest.write(0, filled(1));
  expect(heldBy(target, 'flush')).toBeDefined();
  for (const request of [...target.held]) request.release();
  target.isFree = true;
  await job.complete();
  expect(Buffer.compare(target.bytes, disk.bytes)).toBe(0);
});

test('that is stopped takes back all that was dirty, although it did not come as far as a plan', async () => {
  await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b', granularity: G }] });
  await guest.write(G, filled(1));
  const job = run({ sync: 'bitmap', bitmap: 'b', bitmapMode: 'always' });
  job.stop();
  await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
  expect(graph.node('disk').bitmaps[0]).toMatchObject({ dirtyBytes: G, busy: false });
});

describe('a range that cannot be read, while the target fails what can', () => {
  test('waits for a human where the policy of the target says so', async () => {
    disk.onFlush = () => {};
    disk.isFree = false;
    const job = run({ onSourceError: 'ignore', onTargetError: 'stop' });
    await until(() => heldBy(disk, 'read') !== undefined);
    target.isFree = false;
    disk.held[0].fail(false);
    await until(() => disk.held.length > 0);
    disk.held[0].release();
    await until(() => target.held.length > 0);
    target.held[0].fail(false);
    await until(() => job.state !== 'running');
    expect(job.state).toBe('paused');
    expect(job.progress().error).toMatchObject({ code: 'ERR_DEVICE_IO' });
    disk.isFree = true;
    target.isFree = true;
    for (const request of [...disk.held, ...target.held]) request.release();
    job.resume();
    await ready(job);
    await job.complete();
    expect(Buffer.compare(target.bytes, disk.bytes)).toBe(0);
  });
});

describe('a mirror that is stopped while its target hangs', () => {
  test('lets guests go on, who have given up on the target', async () => {
    const job = run({ copyMode: 'write-blocking', writeTimeout: 0.02 });
    await ready(job);
    target.isFree = false;
    await guest.write(0, filled(1));
    job.stop();
    await settled();
    await guest.write(0, filled(2));
    const [late] = target.held;
    expect(late.what).toBe('write');
    target.isFree = true;
    late.release();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    expect(graph.edges).toEqual(SIDE_BY_SIDE);
  });

  test('does not wait for a flush that nobody needs', async () => {
    const job = run();
    await ready(job);
    target.isFree = false;
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    expect(graph.edges).toEqual(SIDE_BY_SIDE);
  });
});

describe('a mirror whose end takes longer than the limit before its last round', () => {
  test('makes no round behind that', async () => {
    await setUp(50);
    await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b', granularity: G }] });
    const job = run();
    await ready(job);
    let flushes = 0;
    target.onFlush = () => flushes++;
    const { log } = graph.node('target') as unknown as { log: { markAll(): Promise<void> } };
    let marked = () => {};
    vi.spyOn(log, 'markAll').mockImplementationOnce(
      () =>
        new Promise((resolve) => {
          marked = resolve;
        }),
    );
    await expect(job.complete()).rejects.toMatchObject({ code: 'ERR_GRAPH_BUSY' });
    marked();
    await settled();
    expect(flushes).toBe(0);
    await job.complete();
    expect(flushes).toBe(1);
  });
});

describe('a mirror that cannot change a bitmap when it is given up', () => {
  test('goes all the same, and leaves what the bitmap has to be decided', async () => {
    await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b', granularity: G }] });
    await guest.write(G, filled(1));
    const job = run({ bitmap: 'b' });
    await ready(job);
    await guest.write(2 * G, filled(1));
    const { log } = graph.node('disk') as unknown as { log: { prepare(): Promise<void> } };
    const failure = new Error('the image cannot be marked');
    vi.spyOn(log, 'prepare').mockRejectedValueOnce(failure);
    job.stop();
    await expect(job).rejects.toThrow(failure);
    expect(graph.edges).toEqual(SIDE_BY_SIDE);
    expect(graph.nodes.map(({ name }) => name)).toEqual(['disk', 'target']);
    await graph.changeBitmaps({ disk: [{ type: 'reclaim', name: 'b' }] });
    expect(graph.node('disk').bitmaps[0].dirtyBytes).toBe(2 * G);
  });

  test('goes all the same where there is no memory', async () => {
    const job = run();
    await ready(job);
    const giveBack = fillArena(Arena.default, 0);
    try {
      job.stop();
      await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    } finally {
      giveBack();
    }
    expect(graph.edges).toEqual(SIDE_BY_SIDE);
  });

  test('goes all the same where there is no memory to begin', async () => {
    disk.isFree = false;
    const job = run();
    await until(() => heldBy(disk, 'flush') !== undefined);
    const giveBack = fillArena(Arena.default, 0);
    try {
      disk.isFree = true;
      heldBy(disk, 'flush')!.release();
      await expect(job).rejects.toMatchObject({ code: 'ERR_ARENA_FULL' });
    } finally {
      giveBack();
    }
    expect(graph.edges).toEqual(SIDE_BY_SIDE);
  });
});

test('what is written while it is about to be zeroed is not done twice', async () => {
  graph = new Graph({ drainLimitMs: 2 ** 30 });
  disk = new ManualDisk(SIZE, 'disk', G);
  target = new ManualDisk(SIZE, 'target');
  disk.onFlush = () => {};
  target.isFree = true;
  await graph.addDevice('disk', disk.device);
  await graph.addDevice('target', target.device);
  guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  const job = run({ copyMode: 'write-blocking' });
  await until(() => heldBy(disk, 'status') !== undefined);
  const written = guest.write(0, filled(1));
  await until(() => heldBy(disk, 'write') !== undefined);
  for (let status = heldBy(disk, 'status'); status; status = heldBy(disk, 'status')) {
    status.release();
    await settled();
  }
  disk.isFree = true;
  heldBy(disk, 'write')!.release();
  await written;
  await ready(job);
  expect(job.progress()).toMatchObject({ totalBytes: SIZE + G, doneBytes: SIZE + G });
  await job.complete();
  expect(Buffer.compare(target.bytes, disk.bytes)).toBe(0);
});

test('a target behind a filter is told that what its connection has lost is written again', async () => {
  const slow = { driver: 'throttle', 'node-name': 'slow', 'requests-per-second': 1e9 } as const;
  await graph.add({ ...slow, file: 'target' }, { writable: true });
  const told = vi.fn();
  graph.node('target').driver.writesAgain = told;
  const job = run({ target: 'slow', onTargetError: 'ignore' });
  await ready(job);
  target.isFree = false;
  const completed = job.complete();
  await until(() => heldBy(target, 'flush') !== undefined);
  const lost = new LacunaError('ERR_NBD_UNFLUSHED', 'the connection was lost');
  heldBy(target, 'flush')!.reject(lost);
  await expect(completed).rejects.toBe(lost);
  expect(told).toHaveBeenCalled();
  target.isFree = true;
  await job.complete();
  expect(Buffer.compare(disk.bytes, target.bytes)).toBe(0);
});

test('a mirror does not complete where it becomes unknown in its last round what differs', async () => {
  const job = run();
  await ready(job);
  target.isFree = false;
  const completed = job.complete();
  await until(() => heldBy(target, 'flush') !== undefined);
  const broken = new LacunaError('ERR_ARENA_FULL', 'no memory to note it');
  const get = vi.spyOn(MirroredDisk.prototype, 'broken', 'get').mockReturnValue(broken);
  onTestFinished(() => get.mockRestore());
  target.isFree = true;
  heldBy(target, 'flush')!.release();
  await expect(completed).rejects.toBe(broken);
  expect(guest.node.name).toBe('disk.mirror');
});

test('a mirror makes durable what others have written to its target before it writes anything itself', async () => {
  const earlier = await graph.addExport({ name: 'earlier', node: 'target', writable: true });
  await earlier.write(0, filled(7));
  await earlier.close();
  target.isFree = false;
  const job = run({ copyMode: 'write-blocking' });
  await until(() => target.held.length > 0);
  await guest.write(G, filled(1));
  await settled();
  expect(target.held.map(({ what }) => what)).toEqual(['flush']);
  const lost = new LacunaError('ERR_NBD_UNFLUSHED', 'the connection was lost');
  target.held[0].reject(lost);
  await expect(job).rejects.toBe(lost);
  expect(graph.edges).toEqual(SIDE_BY_SIDE);
});

test('a mirror that is stopped does not wait for the flush of what others have written to its target', async () => {
  target.isFree = false;
  const job = run();
  await until(() => target.held.length > 0);
  job.stop();
  await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
  expect(graph.edges).toEqual(SIDE_BY_SIDE);
  target.held[0].release();
});
