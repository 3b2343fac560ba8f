import { createQcow2, createRawFile } from 'lacuna';
import type { MirrorJob } from 'lacuna/graph';
import { beforeEach, describe, expect, test } from 'vitest';
import { everyOrder } from '../../support/every-order.js';
import { letFlush, ManualDisk, settled } from '../../support/manual-disk.js';
import { filled, G, MirrorSetup, ready, SIZE } from '../../support/mirrored-disk.js';
import { playInOrder } from '../../support/play-in-order.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const BEFORE = [{ parent: 'guest', child: 'root', node: 'disk' }];
const AFTER = [{ parent: 'guest', child: 'root', node: 'target' }];

/** Completes a job whose graph has little patience: this machine may be slower than that. */
async function atLast(job: MirrorJob): Promise<void> {
  while (job.state === 'running') {
    await job.complete().catch((error) => {
      expect(error).toMatchObject({ code: 'ERR_GRAPH_BUSY' });
    });
  }
  await job;
}

let setup: MirrorSetup;

beforeEach(async () => {
  setup = await MirrorSetup.make();
});

describe('a mirror job', () => {
  test('copies the disk and what is written meanwhile, and the target comes into its place', async () => {
    const { guest, graph, disk, target } = setup;
    const job = setup.run();
    await ready(job);
    await guest.write(G, filled(1));
    await guest.zero(3 * G, G);
    const report = await job.complete();
    expect(report).toMatchObject({ completed: true, target: 'target', unreadBytes: 0 });
    expect(setup.isEqual).toBe(true);
    expect(graph.edges).toEqual(AFTER);
    expect(graph.nodes.map(({ name }) => name)).toEqual(['disk', 'target']);
    const before = disk.bytes.slice();
    await guest.write(0, filled(9));
    expect(target.bytes.subarray(0, G)).toEqual(filled(9));
    expect(Buffer.compare(disk.bytes, before)).toBe(0);
  });

  test('that is ready and is cancelled leaves a copy of that moment, and the disk in its place', async () => {
    const { guest, graph, target } = setup;
    const job = setup.run();
    await ready(job);
    await guest.write(G, filled(1));
    await job.cancel();
    expect((await job).completed).toBe(false);
    expect(setup.isEqual).toBe(true);
    expect(graph.edges).toEqual(BEFORE);
    await guest.write(0, filled(9));
    expect(target.bytes.subarray(0, G)).not.toEqual(filled(9));
  });

  test('that is told to complete does that as soon as it is ready', async () => {
    setup.hold();
    const job = setup.run();
    const completed = job.complete();
    while (setup.target.held.length === 0) await settled();
    expect(job.isReady).toBe(false);
    expect(job.progress().isReady).toBe(false);
    setup.release();
    expect((await completed).completed).toBe(true);
    expect(setup.graph.edges).toEqual(AFTER);
  });

  test('tells that it is ready, and how far it is', async () => {
    const job = setup.run({ copyMode: 'write-blocking' });
    await new Promise<void>((resolve) => job.on('ready', resolve));
    const { isReady, copyMode, totalBytes, doneBytes } = job.progress();
    expect({ isReady, copyMode, totalBytes, doneBytes }).toEqual({
      ...{ isReady: true, copyMode: 'write-blocking' },
      ...{ totalBytes: SIZE, doneBytes: SIZE },
    });
    await job.cancel();
  });

  test.each([[true], [false]])(
    'that is cancelled by force, or before it is ready, ends with ERR_JOB_STOPPED (ready: %s)',
    async (isReady) => {
      if (!isReady) setup.hold();
      const job = setup.run();
      if (isReady) await ready(job);
      else while (setup.target.held.length === 0) await settled();
      const cancelled = job.cancel({ force: isReady });
      setup.release();
      await cancelled;
      await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
      expect(job.state).toBe('stopped');
      expect(setup.graph.edges).toEqual(BEFORE);
      expect(setup.graph.nodes).toHaveLength(2);
    },
  );

  test('switches its mode in both directions while it runs', async () => {
    const { guest, target } = setup;
    const job = setup.run();
    await ready(job);
    job.change({ copyMode: 'write-blocking' });
    setup.hold();
    let isOver = false;
    const write = guest.write(0, filled(1)).then(() => {
      isOver = true;
    });
    await settled();
    expect(target.held.map(({ what }) => what)).toEqual(['write']);
    expect(isOver).toBe(false);
    setup.release();
    await write;
    expect(target.bytes.subarray(0, G)).toEqual(filled(1));
    expect(job.progress().dirtyBytes).toBe(0);
    job.change({ copyMode: 'background' });
    setup.hold();
    await guest.write(G, filled(2));
    expect(job.progress().dirtyBytes).toBe(G);
    setup.release();
    await job.complete();
    expect(setup.isEqual).toBe(true);
    expect(() => job.change({ copyMode: 'both' as never })).toThrow('copyMode must be one of');
  });

  test('ends with its graph', async () => {
    const job = setup.run();
    await ready(job);
    await setup.graph.close();
    expect(job.state).toBe('stopped');
    expect(setup.graph.toJSON()).toEqual({ nodes: [], users: [], edges: [] });
  });

  test('of sync none copies what is written, and nothing else', async () => {
    const job = setup.run({ sync: 'none' });
    await ready(job);
    await setup.guest.write(G, filled(1));
    const { movedBytes } = await job.complete();
    expect(movedBytes).toBe(G);
    const expected = new Uint8Array(SIZE).fill(0xee);
    expected.fill(1, G, 2 * G);
    expect(Buffer.compare(setup.target.bytes, expected)).toBe(0);
  });

  test('of the top copies what the top layer holds', async () => {
    const { graph, target } = setup;
    await createRawFile('base.raw', SIZE);
    const backing = { filename: 'base.raw', format: 'raw' } as const;
    await createQcow2('top.qcow2', { size: SIZE, backing });
    const file = { driver: 'file', filename: 'top.qcow2' } as const;
    await graph.add({ 'node-name': 'top', driver: 'qcow2', file }, { writable: true });
    const writer = await graph.addExport({ name: 'writer', node: 'top', writable: true });
    await writer.write(2 * G, filled(1));
    await writer.zero(4 * G, G);
    const job = setup.run({ node: 'top', sync: 'top' });
    await ready(job);
    await job.cancel();
    const expected = new Uint8Array(SIZE).fill(0xee);
    expected.fill(1, 2 * G, 3 * G);
    expected.fill(0, 4 * G, 5 * G);
    expect(Buffer.compare(target.bytes, expected)).toBe(0);
    await graph.close();
  });

  test('into an image that it opens leaves that open where it has come into use, and closes it where not', async () => {
    const { graph, guest } = setup;
    await createQcow2('copy.qcow2', { size: SIZE });
    const file = { driver: 'file', filename: 'copy.qcow2' } as const;
    const target = { driver: 'qcow2', file } as const;
    const first = setup.run({ target });
    await ready(first);
    await first.cancel();
    expect(graph.nodes).toHaveLength(2);
    const second = setup.run({ target });
    await ready(second);
    const report = await second.complete();
    expect(graph.node(report.target).driverName).toBe('qcow2');
    expect(guest.node.name).toBe(report.target);
    const bytes = new Uint8Array(SIZE);
    await guest.read(0, bytes);
    expect(Buffer.compare(bytes, setup.disk.bytes)).toBe(0);
    await graph.close();
  });

  test('leaves out zeroes where the target is zero, and zeroes what is all zero where it is to look', async () => {
    setup.disk.bytes.fill(0, G, 3 * G);
    setup.target.bytes.fill(0);
    const job = setup.run({ targetIsZero: true, detectZeroes: 'unmap' });
    await ready(job);
    // Pieces are larger than what is zero, so nothing is left out here but by status; then what is written is.
    await setup.guest.write(4 * G, new Uint8Array(G));
    const report = await job.complete();
    expect(report.zeroedBytes).toBe(G);
    expect(setup.isEqual).toBe(true);
  });

  test('refuses options that make no sense', () => {
    for (const wrong of [
      { sync: 'half' },
      { sync: 'bitmap' },
      { sync: 'full', bitmap: 'b' },
      { bitmapMode: 'never' },
      { sync: 'incremental', bitmap: 'b', bitmapMode: 'always' },
      { copyMode: 'active' },
      { bitmaps: 'all' },
      { detectZeroes: true },
      { onSourceError: 'retry' },
      { onTargetError: 'enospc' },
      { writeTimeout: 0 },
      { rate: 0 },
      { target: undefined },
    ]) {
      expect(() => setup.run(wrong as never), JSON.stringify(wrong)).toThrow(/\w/);
    }
  });

  test('of a node, or to a target, that cannot be leaves nothing', async () => {
    const { graph } = setup;
    await graph.addDevice('small', new ManualDisk(G).device);
    for (const [options, code] of [
      [{ node: 'x' }, 'ERR_GRAPH_UNKNOWN'],
      [{ target: 'small' }, 'ERR_GRAPH_CONFLICT'],
      [{ bitmap: 'x' }, 'ERR_BITMAP_UNKNOWN'],
    ] as const) {
      await expect(setup.run(options)).rejects.toMatchObject({ code });
      expect(graph.edges).toEqual(BEFORE);
      expect(graph.nodes).toHaveLength(3);
    }
  });
});

describe('the bitmap of a mirror job', () => {
  beforeEach(async () => {
    await setup.graph.changeBitmaps({ disk: [{ type: 'add', name: 'b' }] });
    setup.target.bytes.set(setup.disk.bytes);
    await setup.guest.write(2 * G, filled(1));
    await setup.guest.write(6 * G + 5, Uint8Array.of(1));
  });

  test('says what is copied, and after a success tells of what is written from the end on', async () => {
    const job = setup.run({ bitmap: 'b' });
    await ready(job);
    await setup.guest.write(4 * G, filled(4));
    await job.cancel();
    expect((await job).movedBytes).toBe(3 * G);
    expect(setup.isEqual).toBe(true);
    await setup.guest.write(7 * G, filled(4));
    expect(await setup.dirty()).toEqual([7]);
  });

  test('with bitmapMode never goes on as if there had been no job', async () => {
    const job = setup.run({ sync: 'bitmap', bitmap: 'b', bitmapMode: 'never' });
    await ready(job);
    await setup.guest.write(4 * G, filled(4));
    await job.cancel();
    expect(await setup.dirty()).toEqual([2, 4, 6]);
  });

  test.each([
    ['on-success', [0, 2, 6]],
    ['never', [0, 2, 6]],
    ['always', [0, 6]],
  ] as const)('with bitmapMode %s loses nothing where the job fails', async (bitmapMode, left) => {
    setup.hold();
    const job = setup.run({ sync: 'bitmap', bitmap: 'b', bitmapMode });
    await letFlush(setup.target);
    while (setup.target.held.length < 2) await settled();
    await setup.guest.write(0, filled(5));
    const [second, sixth] = [...setup.target.held].sort((a, b) => a.offset - b.offset);
    second.release();
    sixth.fail(false);
    setup.release();
    await expect(job).rejects.toMatchObject({ code: 'ERR_DEVICE_IO' });
    expect(await setup.dirty()).toEqual(left);
    expect(setup.graph.edges).toEqual(BEFORE);
  });

  test('goes along to the target, without a gap', async () => {
    const { graph, guest } = setup;
    await graph.changeBitmaps({
      disk: [
        { type: 'add', name: 'c', granularity: 2 * G },
        { type: 'add', name: 'd' },
        { type: 'disable', name: 'd' },
      ],
    });
    const job = setup.run({ sync: 'bitmap', bitmap: 'b', bitmapMode: 'never' });
    await ready(job);
    await guest.write(4 * G, filled(4));
    const { bitmaps } = await job.complete();
    expect(bitmaps).toEqual(['b', 'c']);
    await guest.write(0, filled(4));
    expect(await setup.dirty('b', 'target')).toEqual([0, 2, 4, 6]);
    expect(await setup.dirty('c', 'target')).toEqual([0, 1, 4, 5]);
    expect(graph.node('target').bitmaps.map(({ name }) => name)).toEqual(['b', 'c']);
  });

  test('stays where it was where that is said', async () => {
    const job = setup.run({ bitmaps: 'none' });
    await ready(job);
    expect((await job.complete()).bitmaps).toEqual([]);
    expect(setup.graph.node('target').bitmaps).toEqual([]);
  });

  test('that the target has already, or has no place for, is refused at the start', async () => {
    const { graph } = setup;
    await graph.changeBitmaps({ target: [{ type: 'add', name: 'b' }] });
    await expect(setup.run()).rejects.toThrow('another one of that name');
    await createQcow2('disk.qcow2', { size: SIZE });
    const file = { driver: 'file', filename: 'disk.qcow2' } as const;
    await graph.add({ 'node-name': 'image', driver: 'qcow2', file }, { writable: true });
    await graph.changeBitmaps({ image: [{ type: 'add', name: 'p', persistent: true }] });
    await expect(setup.run({ node: 'image' })).rejects.toThrow('no place to keep it');
    await graph.close();
  });

  test('that somebody else has frozen at the end is waited for, and the job goes on', async () => {
    const { graph } = setup;
    const job = setup.run();
    await ready(job);
    await graph.changeBitmaps({ disk: [{ type: 'freeze', name: 'b' }] });
    await expect(job.complete()).rejects.toMatchObject({ code: 'ERR_BITMAP_BUSY' });
    expect(job.state).toBe('running');
    expect(setup.guest.node.name).toBe('disk.mirror');
    await graph.changeBitmaps({ disk: [{ type: 'reclaim', name: 'b' }] });
    await job.complete();
    expect(await setup.dirty('b', 'target')).toEqual([2, 6]);
  });
});

describe('the place of a mirror job', () => {
  const delay = (name: string) =>
    ({ driver: 'delay', milliseconds: 0, 'node-name': name }) as const;

  test('is below the filters that are there, which stay; those below go', async () => {
    const { graph } = setup;
    await graph.insertFilter({ filter: delay('upper'), above: 'disk' });
    const job = setup.run();
    await ready(job);
    await graph.insertFilter({ filter: delay('lower'), above: 'disk' });
    await graph.insertFilter({ filter: delay('middle'), above: 'disk.mirror' });
    await job.complete();
    expect(graph.edges).toEqual(
      expect.arrayContaining([
        { parent: 'guest', child: 'root', node: 'upper' },
        { parent: 'upper', child: 'file', node: 'middle' },
        { parent: 'middle', child: 'file', node: 'target' },
        { parent: 'lower', child: 'file', node: 'disk' },
      ]),
    );
    expect(graph.edges).toHaveLength(4);
  });

  test('is not for others to change', async () => {
    const { graph } = setup;
    const job = setup.run();
    await ready(job);
    for (const change of [graph.removeFilter('disk.mirror'), graph.remove('disk.mirror')]) {
      await expect(change).rejects.toThrow('is a part of a job');
    }
    const beside = graph.addExport({ name: 'beside', node: 'disk', writable: true });
    await expect(beside).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    const target = graph.addExport({ name: 'beside', node: 'target', writable: true });
    await expect(target).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    const mirror = { driver: 'mirror', file: 'disk', target: 'target' } as never;
    await expect(graph.add(mirror)).rejects.toThrow('mirror');
    await job.cancel();
  });

  test('is kept where nobody uses the disk', async () => {
    const { graph } = setup;
    await setup.guest.close();
    const job = setup.run();
    await ready(job);
    const beside = graph.addExport({ name: 'beside', node: 'disk', writable: true });
    await expect(beside).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    const user = await graph.addExport({ name: 'user', node: 'disk.mirror', writable: true });
    await user.write(0, filled(5));
    await job.complete();
    expect(user.node.name).toBe('target');
    expect(setup.isEqual).toBe(true);
  });

  test('a filter that was made for the disk comes too late when the mirror has completed', async () => {
    const { graph } = setup;
    const job = setup.run();
    await ready(job);
    const above = graph.node('disk.mirror');
    await graph.add({ ...delay('throttle'), file: 'disk.mirror' }, { writable: true });
    await job.complete();
    const change = {
      ...{ parent: 'guest', child: 'root', replacement: 'throttle' },
      expected: above,
    };
    await expect(graph.replaceChild(change)).rejects.toMatchObject({
      code: 'ERR_GRAPH_EDGE_CHANGED',
    });
    const old = { parent: 'guest', child: 'root', expected: 'disk', replacement: 'throttle' };
    await expect(graph.replaceChild(old)).rejects.toMatchObject({ code: 'ERR_GRAPH_EDGE_CHANGED' });
    expect(graph.edges).toEqual([
      ...AFTER,
      // Nothing has come back to life: it leads to what the mirror has put in place.
      { parent: 'throttle', child: 'file', node: 'target' },
    ]);
  });

  test('is left only for a target of the same size', async () => {
    const { graph } = setup;
    const larger = new ManualDisk(SIZE + G);
    larger.isFree = true;
    await graph.addDevice('larger', larger.device);
    const job = setup.run({ target: 'larger' });
    await ready(job);
    await expect(job.complete()).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    expect(job.isReady).toBe(true);
    await job.cancel();
    expect(Buffer.compare(larger.bytes.subarray(0, SIZE), setup.disk.bytes)).toBe(0);
  });

  test('is not left while requests do not end, and then it is', async () => {
    setup = await MirrorSetup.make({ drainLimitMs: 50 });
    const { guest, disk, graph } = setup;
    const job = setup.run();
    await ready(job);
    disk.isFree = false;
    const read = guest.read(0, new Uint8Array(10));
    await settled();
    await expect(job.complete()).rejects.toMatchObject({ code: 'ERR_GRAPH_BUSY' });
    expect(guest.node.name).toBe('disk.mirror');
    disk.isFree = true;
    disk.held[0].release();
    await read;
    await guest.write(0, filled(7));
    await atLast(job);
    expect(graph.edges).toEqual(AFTER);
    expect(setup.isEqual).toBe(true);
  });

  test('is not left where the last round takes too long, and what it did not copy is copied later', async () => {
    setup = await MirrorSetup.make({ drainLimitMs: 50 });
    const { guest } = setup;
    const job = setup.run();
    await ready(job);
    setup.hold();
    await guest.write(0, filled(7));
    await guest.write(4 * G, filled(7));
    const completed = job.complete();
    completed.catch(() => {});
    while (setup.target.held.length === 0) await settled();
    // The limit is over while the target has not answered; who writes goes on.
    await expect.poll(() => setup.graph.toJSON().users).toHaveLength(2);
    await guest.write(2 * G, filled(8));
    setup.release();
    await completed.catch((error) => expect(error).toMatchObject({ code: 'ERR_GRAPH_BUSY' }));
    await atLast(job);
    expect(setup.isEqual).toBe(true);
  });

  test('another disk below makes all of it dirty', async () => {
    const { graph, target } = setup;
    const other = new ManualDisk(SIZE, 'other');
    other.isFree = true;
    other.bytes.fill(0x55);
    await graph.addDevice('other', other.device);
    const job = setup.run();
    await ready(job);
    await graph.replaceChild({
      ...{ parent: 'disk.mirror', child: 'file', expected: 'disk', replacement: 'other' },
      unsafe: true,
    });
    await job.complete();
    expect(target.bytes.every((byte) => byte === 0x55)).toBe(true);
  });
});

describe('a target that fails', () => {
  /** Lets one request to the target fail, which has been begun by a write or by the job. */
  async function failOne(): Promise<void> {
    while (setup.target.held.length === 0) await settled();
    setup.target.held[0].fail(false);
    setup.release();
  }

  test('fails the job, and no write', async () => {
    const job = setup.run({ copyMode: 'write-blocking' });
    await ready(job);
    setup.hold();
    const write = setup.guest.write(0, filled(1));
    await failOne();
    await write;
    await expect(job).rejects.toMatchObject({ code: 'ERR_DEVICE_IO' });
    expect(setup.graph.edges).toEqual(BEFORE);
  });

  test('stops the job until a human has resumed it, and writes are copied later', async () => {
    const job = setup.run({ copyMode: 'write-blocking', onTargetError: 'stop' });
    await ready(job);
    const paused = new Promise((resolve) => job.on('paused', resolve));
    setup.hold();
    const write = setup.guest.write(0, filled(1));
    await failOne();
    await write;
    expect(await paused).toMatchObject({ code: 'ERR_DEVICE_IO' });
    setup.hold();
    await setup.guest.write(G, filled(2));
    expect(setup.target.held).toEqual([]);
    setup.release();
    job.resume();
    await job.complete();
    expect(setup.isEqual).toBe(true);
  });

  test('is tried again where that is said', async () => {
    setup.hold();
    const job = setup.run({ onTargetError: 'ignore' });
    await letFlush(setup.target);
    await failOne();
    await ready(job);
    await job.complete();
    expect(setup.isEqual).toBe(true);
  });

  test('in the last round leaves the disk in its place', async () => {
    const job = setup.run({ onTargetError: 'stop' });
    await ready(job);
    setup.hold();
    const completed = job.complete();
    completed.catch(() => {});
    await failOne();
    await expect(completed).rejects.toMatchObject({ message: expect.stringContaining('failed') });
    expect(job.state).toBe('running');
    await job.complete();
    expect(setup.isEqual).toBe(true);
    expect(setup.graph.edges).toEqual(AFTER);
  });
});

test('a disk that cannot be read is zero in the target where that is said, and tried again', async () => {
  const { disk, target } = setup;
  disk.onFlush = () => {};
  disk.isFree = false;
  const job = setup.run({ onSourceError: 'ignore' });
  while (disk.held.length === 0) await settled();
  for (let i = 0; i < 1 + SIZE / 4096; i++) {
    while (disk.held.length === 0) await settled();
    // The piece, and then of its units the first.
    if (i < 2) disk.held[0].fail(false);
    else disk.held[0].release();
  }
  disk.isFree = true;
  await ready(job);
  expect(target.bytes.subarray(0, 4096)).toEqual(new Uint8Array(4096));
  expect(Buffer.compare(target.bytes.subarray(4096), disk.bytes.subarray(4096))).toBe(0);
  const report = await job.complete();
  expect(report.unreadBytes).toBe(0);
  expect(setup.isEqual).toBe(true);
});

test.each([['background'], ['write-blocking']] as const)(
  'in every order of two writes and a pivot in the mode %s, both sides are equal then, and each write is on one of them',
  async (copyMode) => {
    await everyOrder(async (choose) => {
      setup = await MirrorSetup.make({ size: G });
      const { guest, graph, disk, target } = setup;
      const job = setup.run({ copyMode });
      await ready(job);
      let moment = '';
      target.onFlush = () => {
        moment = `${Buffer.compare(disk.bytes, target.bytes)}`;
      };
      disk.onFlush = () => {};
      disk.isFree = false;
      setup.hold();
      await playInOrder(
        choose,
        [disk, target],
        [
          () => guest.write(0, new Uint8Array(100).fill(1)),
          () => guest.write(50, new Uint8Array(100).fill(2)),
          () => job.complete(),
        ],
      );
      expect(moment).toBe('0');
      expect(graph.edges).toEqual(AFTER);
      expect(target.bytes[0]).toBe(1);
      expect(target.bytes[149]).toBe(2);
      expect([1, 2]).toContain(target.bytes[75]);
    });
  },
);
