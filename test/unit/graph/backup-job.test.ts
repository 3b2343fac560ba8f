import { createQcow2, createRawFile, openDevice } from 'lacuna';
import { type BackupJobOptions, Graph, type Root } from 'lacuna/graph';
import { beforeEach, describe, expect, test } from 'vitest';
import { everyOrder } from '../../support/every-order.js';
import { pattern } from '../../support/fake-device.js';
import { ManualDisk, settled } from '../../support/manual-disk.js';
import { filled, G, MirrorSetup, SIZE } from '../../support/mirrored-disk.js';
import { playInOrder } from '../../support/play-in-order.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

let setup: MirrorSetup;
let graph: Graph;
let guest: Root;
let disk: ManualDisk;
let target: ManualDisk;

async function setUp(size?: number, drainLimitMs?: number): Promise<void> {
  setup = await MirrorSetup.make({ size, drainLimitMs });
  ({ graph, guest, disk, target } = setup);
}

beforeEach(() => setUp());

const run = (options: Partial<BackupJobOptions> = {}) =>
  graph.backup({ disks: [{ node: 'disk', target: 'target' }], ...options });

/** Lets a job begin, whose first requests to the target then wait. */
async function begun(job: PromiseLike<unknown>): Promise<void> {
  target.isFree = false;
  job.then(
    () => {},
    () => {},
  );
  while (target.held.length === 0) await settled();
}

describe('a full backup job', () => {
  test('copies the disk of its point in time, while that is written', async () => {
    const before = disk.bytes.slice();
    const job = run();
    await begun(job);
    const writes = [guest.write(0, filled(1)), guest.zero(5 * G, 2 * G)];
    await settled();
    setup.release();
    const report = await job;
    await Promise.all(writes);
    expect(target.bytes).toEqual(before);
    expect(report.movedBytes).toBeLessThanOrEqual(SIZE);
    expect(disk.bytes.subarray(0, G)).toEqual(filled(1));
    expect(graph.edges).toEqual([{ parent: 'guest', child: 'root', node: 'disk' }]);
    expect(graph.nodes.map(({ name }) => name)).toEqual(['disk', 'target']);
    expect(job).toMatchObject({ state: 'done' });
  });

  test('that is stopped says so, and leaves the disk as it was used', async () => {
    // More than are copied at the same time.
    const size = 10 * 1024 * 1024;
    const [large, copied] = [new ManualDisk(size), new ManualDisk(size)];
    large.isFree = true;
    large.bytes.fill(1);
    await graph.addDevice('large', large.device);
    await graph.addDevice('copied', copied.device);
    const job = run({ disks: [{ node: 'large', target: 'copied' }] });
    job.then(
      () => {},
      () => {},
    );
    while (copied.held.length === 0) await settled();
    job.stop();
    copied.isFree = true;
    for (const request of [...copied.held]) request.release();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    expect(graph.edges).toEqual([{ parent: 'guest', child: 'root', node: 'disk' }]);
    expect(graph.nodes).toHaveLength(4);
    await guest.write(0, filled(1));
  });

  test('of several nodes is of one point in time', async () => {
    const [other, second] = [new ManualDisk(SIZE), new ManualDisk(SIZE)];
    other.isFree = true;
    second.isFree = true;
    await graph.addDevice('other', other.device);
    await graph.addDevice('second', second.device);
    const writer = await graph.addExport({ name: 'writer', node: 'other', writable: true });
    const disks = [
      { node: 'disk', target: 'target' },
      { node: 'other', target: 'second' },
    ];
    const before = disk.bytes.slice();
    const job = run({ disks });
    await begun(job);
    const writes = [guest.write(0, filled(1)), writer.write(0, filled(2))];
    await settled();
    setup.release();
    await Promise.all([job, ...writes]);
    expect(target.bytes).toEqual(before);
    expect(second.bytes).toEqual(new Uint8Array(SIZE));
    expect(other.bytes.subarray(0, G)).toEqual(filled(2));
  });

  test('copies into an image that it opens, and closes it', async () => {
    await createQcow2('copy.qcow2', { size: SIZE });
    const file = { driver: 'file', filename: 'copy.qcow2' } as const;
    const description = { driver: 'qcow2', file } as const;
    await run({ disks: [{ node: 'disk', target: description }] });
    await using made = await openDevice('copy.qcow2');
    const bytes = new Uint8Array(SIZE);
    await made.read(0, bytes);
    expect(bytes).toEqual(pattern(SIZE));
  });
});

describe('a backup job', () => {
  test('of the top takes what the top layer holds', async () => {
    await createRawFile('base.raw', SIZE);
    await createQcow2('top.qcow2', {
      size: SIZE,
      backing: { filename: 'base.raw', format: 'raw' },
    });
    const file = { driver: 'file', filename: 'top.qcow2' } as const;
    await graph.add({ 'node-name': 'top', driver: 'qcow2', file }, { writable: true });
    const writer = await graph.addExport({ name: 'writer', node: 'top', writable: true });
    await writer.write(2 * G, filled(1));
    await writer.zero(4 * G, G);
    await run({ disks: [{ node: 'top', target: 'target' }], sync: 'top' });
    const expected = new Uint8Array(SIZE).fill(0xee);
    expected.fill(1, 2 * G, 3 * G);
    expected.fill(0, 4 * G, 5 * G);
    expect(target.bytes).toEqual(expected);
  });

  test('of nothing keeps what is about to be changed, until it is stopped', async () => {
    const job = run({ sync: 'none' });
    while (graph.edges.length < 4) await settled();
    await guest.write(G, filled(1));
    job.stop();
    await job;
    const expected = new Uint8Array(SIZE).fill(0xee);
    expected.set(pattern(SIZE).subarray(G, 2 * G), G);
    expect(target.bytes).toEqual(expected);
    await guest.write(3 * G, filled(1));
    expect(target.bytes).toEqual(expected);
  });

  test('leaves out zeroes where the target is known to read as zero', async () => {
    const source = new Graph();
    await source.add({ 'node-name': 'disk', driver: 'memory', size: SIZE }, { writable: true });
    const writer = await source.addExport({ name: 'guest', node: 'disk', writable: true });
    await writer.write(G, filled(1));
    target.isFree = false;
    target.onFlush = () => {};
    await source.addDevice('target', target.device);
    const disks = [{ node: 'disk', target: 'target' }];
    const job = source.backup({ disks, targetIsZero: true });
    while (target.held.length === 0) await settled();
    expect(target.held.map(({ what, offset, length }) => [what, offset, length])).toEqual([
      ['write', G, G],
    ]);
    target.isFree = true;
    target.held[0].release();
    expect(await job).toEqual({ movedBytes: G, zeroedBytes: 0 });
  });

  test('is done when its target has been flushed', async () => {
    let flushes = 0;
    target.onFlush = () => flushes++;
    await run();
    expect(flushes).toBe(1);
  });

  test('that is stopped tries to end until the requests in flight let it', async () => {
    await setUp(SIZE, 100);
    const job = run({ sync: 'none' });
    while (graph.edges.length < 4) await settled();
    disk.isFree = false;
    const read = guest.read(0, new Uint8Array(10));
    await settled();
    job.stop();
    await settled();
    // It has its turn behind the first attempt of the job.
    const change = graph.changeBitmaps({ disk: [{ type: 'add', name: 'b' }] });
    await expect(change).rejects.toMatchObject({ code: 'ERR_GRAPH_BUSY' });
    disk.isFree = true;
    disk.held[0].release();
    await read;
    expect(await job).toEqual({ movedBytes: 0, zeroedBytes: 0 });
  });

  test('fails where a write could not wait for its copy, and the write goes on', async () => {
    const job = run({ sync: 'none' });
    while (graph.edges.length < 4) await settled();
    target.isFree = false;
    const write = guest.write(G, filled(1));
    await settled();
    target.held[0].fail(false);
    await write;
    target.isFree = true;
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_VIEW_LOST' });
  });

  test.each([
    ['report', 'ERR_DEVICE_IO'],
    ['stop', undefined],
  ] as const)('whose target fails does as onTargetError %s says', async (onTargetError, code) => {
    const job = run({ onTargetError });
    const paused = new Promise((resolve) => job.on('paused', resolve));
    await begun(job);
    target.isFree = true;
    const [first, ...others] = [...target.held];
    first.fail(false);
    for (const each of others) each.release();
    if (code !== undefined) {
      await expect(job).rejects.toMatchObject({ code });
      return;
    }
    await expect(paused).resolves.toMatchObject({ code: 'ERR_DEVICE_IO' });
    await guest.write(0, filled(9));
    job.resume();
    await job;
    expect(target.bytes).toEqual(pattern(SIZE));
  });

  test('refuses options that make no sense', () => {
    for (const wrong of [
      { disks: [] },
      { sync: 'half' },
      { sync: 'bitmap' },
      { bitmapMode: 'never' },
      { sync: 'none', bitmap: 'b' },
      { sync: 'incremental', bitmap: 'b', bitmapMode: 'always' },
      { onSourceError: 'ignore' },
      { copyTimeout: -1 },
      { rate: 0 },
      { disks: [{ node: 'disk' }] },
    ]) {
      expect(() => run(wrong as never), JSON.stringify(wrong)).toThrow(/\w/);
    }
  });

  test('of a node that is not there leaves nothing', async () => {
    const disks = [
      { node: 'disk', target: 'target' },
      { node: 'x', target: 'target' },
    ];
    await expect(run({ disks })).rejects.toMatchObject({ code: 'ERR_GRAPH_UNKNOWN' });
    expect(graph.nodes.map(({ name }) => name)).toEqual(['disk', 'target']);
  });
});

describe('a backup job from a bitmap', () => {
  beforeEach(async () => {
    await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b' }] });
    target.bytes.set(disk.bytes);
    await guest.write(2 * G, filled(1));
    await guest.write(6 * G + 5, Uint8Array.of(1));
  });

  /** A job beside which granule 0 is written, and which ends as is said. */
  async function play(options: Partial<BackupJobOptions>, isGood: boolean): Promise<Uint8Array> {
    const before = disk.bytes.slice();
    const job = run({ bitmap: 'b', ...options });
    await begun(job);
    const write = guest.write(0, filled(5));
    await settled();
    if (!isGood) target.held.at(-1)!.fail(false);
    setup.release();
    await job.then(
      () => expect(isGood).toBe(true),
      () => expect(isGood).toBe(false),
    );
    await write;
    return before;
  }

  test('takes what is dirty, and the bitmap goes on from its point in time', async () => {
    const before = await play({}, true);
    expect(target.bytes).toEqual(before);
    expect(await setup.dirty()).toEqual([0]);
  });

  test('that fails loses nothing of what was dirty', async () => {
    await play({}, false);
    expect(await setup.dirty()).toEqual([0, 2, 6]);
  });

  test('with bitmapMode never leaves the bitmap to go on', async () => {
    await play({ sync: 'bitmap', bitmapMode: 'never' }, true);
    expect(await setup.dirty()).toEqual([0, 2, 6]);
  });

  test('with bitmapMode always has what was not copied where it fails', async () => {
    await play({ sync: 'bitmap', bitmapMode: 'always' }, false);
    expect(await setup.dirty()).toEqual([0, 6]);
    expect(target.bytes.subarray(2 * G, 3 * G)).toEqual(filled(1));
  });

  test('copied again after a failure has it all', async () => {
    await play({ sync: 'bitmap', bitmapMode: 'always' }, false);
    await run({ bitmap: 'b' });
    expect(target.bytes).toEqual(disk.bytes);
    expect(await setup.dirty()).toEqual([]);
  });
});

test('in every order of two writes and what a backup job does, it copies its point in time', async () => {
  const orders = await everyOrder(async (choose) => {
    await setUp(G);
    disk.isFree = false;
    let moment: Uint8Array | undefined;
    disk.onFlush = () => {
      moment ??= disk.bytes.slice();
    };
    await playInOrder(
      choose,
      [disk],
      [
        () => guest.write(0, filled(1)),
        () => guest.write(100, new Uint8Array(100).fill(2)),
        () => run(),
      ],
    );
    expect(target.bytes).toEqual(moment);
    disk.isFree = true;
    await graph.close();
  });
  expect(orders).toBe(40);
});

test('a graph that is closed stops its jobs', async () => {
  await setUp();
  const job = run();
  await begun(job);
  const closed = graph.close();
  setup.release();
  await closed;
  expect(['done', 'stopped']).toContain(job.state);
  expect(graph.toJSON()).toEqual({ nodes: [], users: [], edges: [] });
});

test('in every order of a write, a backup job and a filter of others that comes in, the copy is of one moment, and the filter stays', async () => {
  await everyOrder(async (choose) => {
    await setUp(G);
    disk.isFree = false;
    const moments: string[] = [];
    disk.onFlush = () => void moments.push(disk.bytes.join());
    const filter = { driver: 'delay', milliseconds: 0, 'node-name': 'filter' } as const;
    await playInOrder(
      choose,
      [disk],
      [
        () => guest.write(0, filled(1)),
        () => run(),
        () => graph.insertFilter({ filter, above: 'disk' }),
      ],
    );
    expect(moments).toContain(target.bytes.join());
    expect(graph.edges).toContainEqual({ parent: 'guest', child: 'root', node: 'filter' });
    expect(graph.edges).toContainEqual({ parent: 'filter', child: 'file', node: 'disk' });
    expect(graph.edges).toHaveLength(2);
    disk.isFree = true;
    await graph.close();
  });
});
