import { createQcow2, createRawFile, openBitmaps, openDevice } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { expect, test } from 'vitest';
import { pattern } from '../../support/fake-device.js';
import { ManualDisk, settled } from '../../support/manual-disk.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const G = 65_536;
const SIZE = 4 * G;
const file = (filename: string) => ({ driver: 'file', filename }) as const;
const image = (filename: string) => ({ driver: 'qcow2', file: file(filename) }) as const;
const filled = (value: number, granules = 1) => new Uint8Array(granules * G).fill(value);

test.each(['raw', 'qcow2'] as const)(
  'a disk in a %s file grows while it is written, its bitmaps with it, and its exports keep their size',
  async (format) => {
    const path = `disk.${format}`;
    if (format === 'raw') await createRawFile(path, SIZE);
    else await createQcow2(path, { size: SIZE });
    const graph = new Graph();
    const described = format === 'raw' ? file(path) : image(path);
    await graph.add({ 'node-name': 'disk', ...described }, { writable: true });
    const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    await graph.changeBitmaps({
      disk: [
        { type: 'add', name: 'kept', persistent: format === 'qcow2' },
        { type: 'add', name: 'lost' },
      ],
    });
    await guest.write(G, filled(1));
    await graph.resize('disk', 2 * SIZE);
    expect([graph.node('disk').size, guest.size]).toEqual([2 * SIZE, SIZE]);
    await guest.write(2 * G, filled(2));
    await expect(guest.write(SIZE, filled(1))).rejects.toBeInstanceOf(RangeError);
    const again = await graph.addExport({ name: 'again', node: 'disk', writable: true });
    const added = new Uint8Array(SIZE).fill(9);
    await again.read(SIZE, added);
    expect(added).toEqual(new Uint8Array(SIZE));
    await again.write(SIZE + G, filled(3));
    for (const name of ['kept', 'lost']) {
      const bitmap = await graph.node('disk').bitmap(name);
      expect([...bitmap.ranges()].map(({ offset, length }) => [offset / G, length / G])).toEqual([
        [1, 2],
        [5, 1],
      ]);
    }
    await graph.close();
    await using device = await openDevice(described);
    const bytes = new Uint8Array(2 * SIZE);
    await device.read(0, bytes);
    const expected = new Uint8Array(2 * SIZE);
    for (const [granule, value] of [
      [1, 1],
      [2, 2],
      [5, 3],
    ])
      expected.fill(value, granule * G, (granule + 1) * G);
    expect(bytes).toEqual(expected);
    if (format === 'raw') return;
    await using stored = await openBitmaps(path);
    expect(stored.bitmaps.list()).toMatchObject([{ name: 'kept', inconsistent: false }]);
    expect((await stored.bitmaps.load('kept')).dirtyBytes).toBe(3 * G);
  },
);

test('what lies below an overlay that grows does not show behind the old end', async () => {
  await createRawFile('base.raw', 2 * SIZE);
  {
    await using base = await openDevice('base.raw', { writable: true });
    await base.write(0, pattern(2 * SIZE));
  }
  await createQcow2('top.qcow2', { size: SIZE, backing: { filename: 'base.raw', format: 'raw' } });
  await using graph = new Graph();
  await graph.add({ 'node-name': 'top', ...image('top.qcow2') }, { writable: true });
  await graph.changeBitmaps({ top: [{ type: 'add', name: 'b' }] });
  await graph.resize('top', 2 * SIZE);
  const reader = await graph.addExport({ name: 'reader', node: 'top' });
  const bytes = new Uint8Array(2 * SIZE);
  await reader.read(0, bytes);
  expect(bytes.subarray(0, SIZE)).toEqual(pattern(2 * SIZE).subarray(0, SIZE));
  expect(bytes.subarray(SIZE)).toEqual(new Uint8Array(SIZE));
  expect((await graph.node('top').bitmap('b')).dirtyBytes).toBe(0);
});

test('a disk grows although a bitmap was removed that its image has stored', async () => {
  await createQcow2('disk.qcow2', { size: SIZE });
  await using graph = new Graph();
  await graph.add({ 'node-name': 'disk', ...image('disk.qcow2') }, { writable: true });
  for (const name of ['gone', 'kept']) {
    await graph.changeBitmaps({ disk: [{ type: 'add', name, persistent: true }] });
  }
  await graph.storeBitmaps('disk');
  await graph.changeBitmaps({ disk: [{ type: 'remove', name: 'gone' }] });
  await graph.resize('disk', 2 * SIZE);
  expect(graph.node('disk').bitmaps.map(({ name }) => name)).toEqual(['kept']);
});

test('a disk in an image that cannot be opened anew after it has grown says so to every request, and can be added again', async () => {
  await createQcow2('disk.qcow2', { size: SIZE });
  await using graph = new Graph();
  const add = () => graph.add({ 'node-name': 'disk', ...image('disk.qcow2') }, { writable: true });
  const disk = await add();
  const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  await guest.write(0, filled(1));
  disk.openAnew = async () => {
    throw new Error('no memory');
  };
  await expect(graph.resize('disk', 2 * SIZE)).rejects.toThrow('no memory');
  const message =
    "node 'disk' was closed to be opened anew, which failed: no memory; remove the node, and add it again";
  for (const request of [guest.read(0, filled(0)), guest.write(0, filled(2)), guest.flush()])
    await expect(request).rejects.toMatchObject({ code: 'ERR_DEVICE_CLOSED', message });
  await guest.close();
  await graph.remove('disk');
  expect((await add()).size).toBe(2 * SIZE);
  const again = await graph.addExport({ name: 'again', node: 'disk' });
  const bytes = filled(0);
  await again.read(0, bytes);
  expect(bytes).toEqual(filled(1));
});

test('a disk whose size others count on does not grow', async () => {
  await createRawFile('disk.raw', SIZE);
  await createQcow2('top.qcow2', { size: SIZE, backing: { filename: 'disk.raw', format: 'raw' } });
  await using graph = new Graph();
  await graph.add({ 'node-name': 'disk', ...file('disk.raw') }, { writable: true });
  const grow = () => graph.resize('disk', 2 * SIZE);
  const refused = async (message: string) => {
    await expect(grow()).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    await expect(grow()).rejects.toThrow(message);
    expect(graph.node('disk').size).toBe(SIZE);
  };
  await graph.addDevice('scratch', new ManualDisk(SIZE).device);
  await graph.insertFilter({
    filter: { driver: 'copy-before-write', 'node-name': 'keep', target: 'scratch' },
    above: 'disk',
  });
  const guest = await graph.addExport({ name: 'guest', node: 'keep', writable: true });
  await refused("node 'keep' keeps or copies");
  await guest.close();
  await graph.removeFilter('keep');
  await graph.insertFilter({
    filter: { driver: 'delay', milliseconds: 0, 'node-name': 'slow' },
    above: 'disk',
  });
  await refused("node 'slow' shows node 'disk' as large as it was");
  await graph.removeFilter('slow');
  await graph.add({ 'node-name': 'top', ...image('top.qcow2'), backing: 'disk' });
  await refused("backing of node 'top' does not let others resize");
  await graph.remove('top');
  const own = await graph.addExport({ name: 'own', node: 'disk', shares: ['read', 'write'] });
  await refused("export 'own' does not let others resize");
  await own.close();
  await graph.addDevice('rigid', new ManualDisk(SIZE).device);
  await expect(graph.resize('rigid', 2 * SIZE)).rejects.toThrow('cannot be made larger');
  await expect(graph.resize('disk', G)).rejects.toBeInstanceOf(RangeError);
  await graph.add({ 'node-name': 'rest', ...image('top.qcow2'), backing: null });
  await expect(graph.resize('rest', 2 * SIZE)).rejects.toThrow('for reading only');
  await grow();
  expect(graph.node('disk').size).toBe(2 * SIZE);
});

test('a disk grows when the requests in flight have ended', async () => {
  await createRawFile('disk.raw', SIZE);
  await using graph = new Graph({ drainLimitMs: 2 ** 30 });
  await graph.add({ 'node-name': 'disk', ...file('disk.raw') }, { writable: true });
  const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  let isOver = false;
  let count = 0;
  const writes = (async () => {
    while (!isOver) {
      await guest.write((count++ % 4) * G, filled(count));
      await settled();
    }
  })();
  for (let size = SIZE + G; size <= 2 * SIZE; size += G) await graph.resize('disk', size);
  isOver = true;
  await writes;
  expect(graph.node('disk').size).toBe(2 * SIZE);
});
