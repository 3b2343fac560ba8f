import { openDevice } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { describe, expect, test } from 'vitest';
import { Context } from '#dist/extent/index.js';
import { everyOrder } from '../../support/every-order.js';
import { pattern } from '../../support/fake-device.js';
import { GRANULE as G, layeredGraph, makeChain } from '../../support/layered-graph.js';
import { playInOrder } from '../../support/play-in-order.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const filter = { driver: 'copy-on-read', 'node-name': 'cor' } as const;
const image = (filename: string) =>
  ({ driver: 'qcow2', file: { driver: 'file', filename } }) as const;

/** The granules that the top layer of an image holds. */
async function allocated(path: string): Promise<number[]> {
  await using device = await openDevice(path, { contexts: [Context.depth] });
  const [depths] = await device.extents(0, device.size, { contexts: [Context.depth] });
  return [...depths].flatMap(({ offset, length, flags }) =>
    flags === 1 ? Array.from({ length: length / G }, (_, i) => offset / G + i) : [],
  );
}

describe('a copy-on-read filter', () => {
  test('copies what is read into the top layer, and nothing else', async () => {
    await makeChain([
      [1, 1, 1, 1, 1, 1],
      [undefined, 2, undefined, 0, undefined, undefined],
    ]);
    const graph = new Graph();
    await graph.add({ 'node-name': 'top', ...image('1.qcow2') }, { writable: true });
    const guest = await graph.addExport({ name: 'guest', node: 'top', writable: true });
    await graph.insertFilter({ filter, above: 'top' });
    const bytes = new Uint8Array(3 * G);
    await guest.read(G, bytes);
    expect([bytes[0], bytes[G], bytes[2 * G]]).toEqual([2, 1, 0]);
    await graph.removeFilter('cor');
    await guest.read(5 * G, new Uint8Array(10));
    await graph.close();
    expect(await allocated('1.qcow2')).toEqual([1, 2, 3]);
  });

  test('with a bottom leaves what lies below that where it is', async () => {
    await makeChain([
      [1, 1, 1, 1],
      [undefined, 2, 0, undefined],
      [undefined, undefined, undefined, undefined],
    ]);
    const graph = new Graph();
    await graph.add({ 'node-name': 'top', ...image('2.qcow2') }, { writable: true });
    const guest = await graph.addExport({ name: 'guest', node: 'top', writable: true });
    await graph.insertFilter({ filter: { ...filter, bottom: 'top.backing' }, above: 'top' });
    const bytes = new Uint8Array(4 * G);
    await guest.read(0, bytes);
    expect([0, 1, 2, 3].map((granule) => bytes[granule * G])).toEqual([1, 2, 0, 1]);
    await graph.close();
    expect(await allocated('2.qcow2')).toEqual([1, 2]);
  });

  test('still leaves what lies below its bottom where it is when a layer between has gone', async () => {
    await makeChain([
      [1, 1, 1],
      [undefined, 2, undefined],
      [undefined, undefined, undefined],
      [undefined, undefined, undefined],
    ]);
    const graph = new Graph();
    await graph.add({ 'node-name': 'top', ...image('3.qcow2') }, { writable: true });
    const guest = await graph.addExport({ name: 'guest', node: 'top', writable: true });
    const bottom = 'top.backing.backing';
    await graph.insertFilter({ filter: { ...filter, bottom }, above: 'top' });
    await guest.read(G, new Uint8Array(G));
    await graph.commit({ node: 'top.backing', base: bottom });
    await guest.read(0, new Uint8Array(3 * G));
    await graph.close();
    expect(await allocated('3.qcow2')).toEqual([1]);
  });

  test('is refused where its bottom is not below it, and above what is only read', async () => {
    await makeChain([[1], [undefined]]);
    await using graph = new Graph();
    await graph.add({ 'node-name': 'top', ...image('1.qcow2') });
    await graph.add({ 'node-name': 'other', driver: 'memory', size: G });
    await graph.addExport({ name: 'reader', node: 'top' });
    const wrong = graph.insertFilter({ filter: { ...filter, bottom: 'other' }, above: 'top' });
    await expect(wrong).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    const add = graph.add({ ...filter, file: 'top' }, { writable: true });
    await add;
    const reader = graph.addExport({ name: 'other-reader', node: 'cor' });
    await expect(reader).rejects.toThrow(/needs to write node 'top'/);
  });

  test('does not let others write the image beside it', async () => {
    const { graph } = await layeredGraph(pattern(2 * G));
    await graph.insertFilter({ filter, above: 'top' });
    const second = graph.addExport({ name: 'second', node: 'top', writable: true });
    await expect(second).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    await graph.close();
  });

  test('leaves the bitmaps of the image alone, as the disk stays the same', async () => {
    const { graph, guest } = await layeredGraph(pattern(2 * G));
    await graph.changeBitmaps({ top: [{ type: 'add', name: 'b' }] });
    await graph.insertFilter({ filter, above: 'top' });
    await guest.read(0, new Uint8Array(2 * G));
    expect(graph.node('top').bitmaps).toMatchObject([{ dirtyBytes: 0 }]);
    await guest.write(0, new Uint8Array(1));
    expect(graph.node('top').bitmaps).toMatchObject([{ dirtyBytes: G }]);
    await graph.close();
  });

  test('leaves them alone through a mirror too', async () => {
    const { graph, guest, data } = await layeredGraph(pattern(2 * G));
    await graph.changeBitmaps({ top: [{ type: 'add', name: 'b' }] });
    const target = { driver: 'memory', size: guest.size } as const;
    const job = graph.mirror({ node: 'top', target, bitmaps: 'none' });
    await expect.poll(() => job.isReady).toBe(true);
    await graph.insertFilter({ filter, above: 'top.mirror' });
    await guest.read(0, new Uint8Array(2 * G));
    expect(Buffer.compare(data.bytes, pattern(2 * G))).toBe(0);
    expect(graph.node('top').bitmaps).toMatchObject([{ dirtyBytes: 0 }]);
    await job.complete();
    await graph.close();
  });

  test('gives a reader its bytes although they cannot be copied', async () => {
    const { graph, guest, data } = await layeredGraph(pattern(2 * G));
    await graph.insertFilter({ filter, above: 'top' });
    data.isFree = false;
    const bytes = new Uint8Array(G);
    const read = guest.read(0, bytes);
    await expect.poll(() => data.held.length).toBe(1);
    data.held[0].fail(false);
    await read;
    expect(bytes).toEqual(pattern(2 * G).subarray(0, G));
    data.isFree = true;
    await graph.close();
  });

  test('never writes what it has read over what is written meanwhile, in whatever order all ends', async () => {
    const old = pattern(2 * G);
    const fresh = new Uint8Array(1000).fill(7);
    const orders = await everyOrder(async (choose) => {
      const { graph, guest, base, data } = await layeredGraph(old);
      await graph.insertFilter({ filter, above: 'top' });
      base.isFree = false;
      data.isFree = false;
      await playInOrder(
        choose,
        [base, data],
        [() => guest.read(0, new Uint8Array(G)), () => guest.write(500, fresh)],
      );
      base.isFree = true;
      data.isFree = true;
      const bytes = new Uint8Array(2 * G);
      await guest.read(0, bytes);
      const expected = old.slice();
      expected.set(fresh, 500);
      expect(Buffer.compare(bytes, expected)).toBe(0);
      await graph.close();
    });
    expect(orders).toBeGreaterThan(2);
  });

  test('never zeroes what is written meanwhile, in whatever order all ends', async () => {
    const fresh = new Uint8Array(1000).fill(7);
    const orders = await everyOrder(async (choose) => {
      // Behind the end of what is below, the image reads as zero.
      const { graph, guest, data } = await layeredGraph(pattern(G), { size: 2 * G });
      await graph.insertFilter({ filter, above: 'top' });
      data.isFree = false;
      await playInOrder(
        choose,
        [data],
        [() => guest.read(G, new Uint8Array(G)), () => guest.write(G + 500, fresh)],
      );
      data.isFree = true;
      const bytes = new Uint8Array(G);
      await guest.read(G, bytes);
      const expected = new Uint8Array(G);
      expected.set(fresh, 500);
      expect(Buffer.compare(bytes, expected)).toBe(0);
      await graph.close();
    });
    expect(orders).toBeGreaterThan(1);
  });
});
