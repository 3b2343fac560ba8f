import type { Root } from 'lacuna/graph';
import { Graph } from 'lacuna/graph';
import { beforeEach, describe, expect, test } from 'vitest';
import { everyOrder } from '../../support/every-order.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { type KeptDisk, keptDisk } from '../../support/kept-disk.js';
import { settled } from '../../support/manual-disk.js';
import { playInOrder } from '../../support/play-in-order.js';

const GRANULE = 65_536;
const SIZE = 4 * GRANULE;
const OLD = pattern(SIZE);

const filled = (value: number, length = GRANULE) => new Uint8Array(length).fill(value);

const setUp = (options: object = {}, size = SIZE) => keptDisk(OLD.subarray(0, size), options);

async function contentOf(root: Root, offset = 0, length = root.size): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await root.read(offset, bytes);
  return bytes;
}

describe('copy-before-write', () => {
  let setup: KeptDisk;

  beforeEach(async () => {
    setup = await setUp();
  });

  test('keeps what writes, zeroes and discards change', async () => {
    const { guest, view, disk, target } = setup;
    await guest.write(10, filled(1, 20));
    await guest.zero(GRANULE + 5, 10);
    await guest.discard(2 * GRANULE, GRANULE);
    await guest.write(11, filled(2, 5));
    expect(await contentOf(view)).toEqual(OLD);
    expect(disk.bytes.subarray(10, 18)).toEqual(Uint8Array.of(1, 2, 2, 2, 2, 2, 1, 1));
    // What nobody has changed was not copied.
    expect(target.bytes.subarray(3 * GRANULE)).toEqual(filled(0));
  });

  test('copies each granule once', async () => {
    const { guest, target } = setup;
    target.isFree = false;
    const first = guest.write(0, filled(1, 10));
    await settled();
    expect(target.held.map(({ offset, length }) => [offset, length])).toEqual([[0, GRANULE]]);
    target.held[0].release();
    await first;
    await guest.write(20, filled(2, 10));
    expect(target.held).toEqual([]);
  });

  test('tells what the view reads as zero, as of that moment', async () => {
    const graph = new Graph();
    const source = fakeDevice(SIZE);
    await source.write(0, filled(1));
    await graph.addDevice('disk', source);
    await graph.addDevice('target', fakeDevice(SIZE));
    const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    const filter = { driver: 'copy-before-write', 'node-name': 'cbw', target: 'target' } as const;
    await graph.insertFilter({ filter, above: 'disk' });
    await graph.add({ driver: 'snapshot-access', 'node-name': 'view', file: 'cbw' });
    const view = await graph.addExport({ name: 'reader', node: 'view' });
    await guest.write(2 * GRANULE, filled(3));
    const [list] = await view.extents(0, SIZE);
    expect([...list].map(({ length, flags }) => [length / GRANULE, flags])).toEqual([
      [1, 1],
      [1, 6],
      [1, 1],
      [1, 6],
    ]);
    expect(await contentOf(view, 2 * GRANULE, GRANULE)).toEqual(filled(0));
    await graph.close();
  });

  test('gives back what the view discards: it is not copied any more, and cannot be read', async () => {
    const { guest, view, target } = setup;
    await guest.write(0, filled(1));
    await view.discard(0, 2 * GRANULE + 10);
    await guest.write(GRANULE, filled(2));
    expect(target.bytes).toEqual(new Uint8Array(SIZE));
    await expect(contentOf(view, 0, 1)).rejects.toMatchObject({ code: 'ERR_DEVICE_IO' });
    await expect(contentOf(view, GRANULE, 1)).rejects.toThrow('were given back');
    expect(await contentOf(view, 2 * GRANULE, GRANULE)).toEqual(
      OLD.subarray(2 * GRANULE, 3 * GRANULE),
    );
    await expect(view.write(0, filled(1, 1))).rejects.toThrow('only discards');
  });

  test('does not let anybody write the disk beside it, or the target', async () => {
    const { graph } = setup;
    for (const [node, user] of [
      ['disk', "file of node 'cbw'"],
      ['target', "target of node 'cbw'"],
    ]) {
      const writer = graph.addExport({ name: 'writer', node, writable: true });
      await expect(writer).rejects.toThrow(`${user} does not let others write it`);
    }
  });

  test('goes when its view has gone, and leaves the disk as it is', async () => {
    const { graph, guest, view, disk } = setup;
    await guest.write(0, filled(1));
    await expect(graph.removeFilter('cbw')).rejects.toThrow("node 'view' shows what 'cbw' keeps");
    await view.close();
    await graph.remove('view');
    await graph.removeFilter('cbw');
    await guest.write(GRANULE, filled(2));
    expect(disk.bytes.subarray(0, GRANULE)).toEqual(filled(1));
    expect(graph.toJSON().edges).toEqual([{ parent: 'guest', child: 'root', node: 'disk' }]);
    await graph.close();
  });

  test('needs a target that is large enough, and a view of something that keeps', async () => {
    const { graph } = setup;
    await graph.addDevice('small', fakeDevice(GRANULE));
    await graph.addDevice('other', fakeDevice(SIZE));
    const filter = { driver: 'copy-before-write', target: 'small' } as const;
    await expect(graph.insertFilter({ filter, above: 'other' })).rejects.toThrow('larger target');
    const view = graph.add({ driver: 'snapshot-access', file: 'other' });
    await expect(view).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
  });
});

test('copy-before-write with a bitmap keeps what is dirty when it comes into use', async () => {
  const graph = new Graph();
  await graph.addDevice('disk', fakeDevice(SIZE));
  await graph.addDevice('target', fakeDevice(SIZE));
  const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b' }] });
  await guest.write(GRANULE, filled(1));
  const bitmap = { node: 'disk', name: 'b' };
  const filter = { driver: 'copy-before-write', 'node-name': 'cbw', target: 'target', bitmap };
  await graph.insertFilter({ filter: filter as never, above: 'disk' });
  await graph.add({ driver: 'snapshot-access', 'node-name': 'view', file: 'cbw' });
  const view = await graph.addExport({ name: 'reader', node: 'view' });
  await guest.write(0, filled(2, 2 * GRANULE));
  expect(await contentOf(view, GRANULE, GRANULE)).toEqual(filled(1));
  await expect(contentOf(view, 0, GRANULE)).rejects.toThrow('never asked for');
  await graph.close();
});

describe('a copy that fails', () => {
  test('fails the write of the guest, which changes nothing, and keeps the old content', async () => {
    const { guest, view, target, disk } = await setUp();
    target.isFree = false;
    const write = guest.write(0, filled(1));
    await settled();
    target.held[0].fail(false);
    await expect(write).rejects.toThrow('could not be kept');
    expect(disk.bytes).toEqual(OLD);
    target.isFree = true;
    expect(await contentOf(view)).toEqual(OLD);
    await guest.write(0, filled(1));
    expect(await contentOf(view)).toEqual(OLD);
  });

  test('with break-snapshot breaks the view, and lets the guest go on', async () => {
    const { guest, view, target, disk } = await setUp({ 'on-cbw-error': 'break-snapshot' });
    target.isFree = false;
    const write = guest.write(0, filled(1));
    await settled();
    target.held[0].fail(false);
    await write;
    expect(disk.bytes.subarray(0, GRANULE)).toEqual(filled(1));
    await expect(contentOf(view, GRANULE, 1)).rejects.toMatchObject({ code: 'ERR_VIEW_LOST' });
    await guest.write(GRANULE, filled(1));
    expect(target.held).toEqual([]);
  });

  test('because it takes too long keeps its range until it has ended, and a change waits for that', async () => {
    const { graph, guest, view, target, disk } = await setUp({ 'cbw-timeout': 0.01 });
    target.isFree = false;
    await expect(guest.write(0, filled(1))).rejects.toMatchObject({
      cause: { code: 'ERR_TIMEOUT' },
    });
    await view.close();
    await graph.remove('view');
    const removed = graph.removeFilter('cbw');
    await settled();
    expect(graph.toJSON().edges).toContainEqual({ parent: 'guest', child: 'root', node: 'cbw' });
    target.held[0].release();
    await removed;
    expect(disk.bytes).toEqual(OLD);
  });
});

describe('in every order', () => {
  test('of two writes and a read of the view, the view is what the disk was', async () => {
    const orders = await everyOrder(async (choose) => {
      const { graph, disk, target, guest, view } = await setUp({}, GRANULE);
      disk.isFree = false;
      let seen: Uint8Array = new Uint8Array();
      await playInOrder(
        choose,
        [disk],
        [
          () => guest.write(0, filled(1)),
          () => guest.write(100, filled(2, 100)),
          async () => {
            seen = await contentOf(view);
          },
        ],
      );
      expect(seen).toEqual(OLD.subarray(0, GRANULE));
      expect(target.bytes).toEqual(OLD.subarray(0, GRANULE));
      disk.isFree = true;
      await graph.close();
    });
    expect(orders).toBeGreaterThan(50);
  });

  test('of a write, a read of the view and a range that is given back, no read is wrong', async () => {
    const results = new Set<string>();
    await everyOrder(async (choose) => {
      const { graph, disk, target, guest, view } = await setUp({}, GRANULE);
      disk.isFree = false;
      target.isFree = false;
      let seen: string | Uint8Array = 'nothing';
      await playInOrder(
        choose,
        [disk, target],
        [
          () => guest.write(0, filled(1)),
          () => view.discard(0, GRANULE),
          async () => {
            seen = await contentOf(view).catch((error) => error.code);
          },
        ],
      );
      const result = seen as string | Uint8Array;
      if (typeof result !== 'string') expect(result).toEqual(OLD.subarray(0, GRANULE));
      results.add(typeof result === 'string' ? result : 'old');
      // What was given back takes no room.
      expect(target.bytes).toEqual(filled(0));
      disk.isFree = true;
      target.isFree = true;
      await graph.close();
    });
    expect([...results].sort()).toEqual(['ERR_DEVICE_IO', 'old']);
  });
});
