import { readFileSync, statSync } from 'node:fs';
import { createQcow2, createRawFile } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { Device, MemoryDriver } from '#dist/block/index.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { ManualDisk, settled } from '../../support/manual-disk.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const SIZE = 4 * 65_536;
const file = (filename: string) => ({ driver: 'file', filename }) as const;
const slow = { 'node-name': 'slow', driver: 'throttle', 'requests-per-second': 1e9 } as const;

describe('an image whose file is a node', () => {
  test('leaves the node as it was when it cannot be opened', async () => {
    await createRawFile('raw.img', SIZE);
    await using graph = new Graph();
    const raw = await graph.add({ 'node-name': 'raw', ...file('raw.img') }, { writable: true });
    const opened = graph.add({ driver: 'qcow2', file: 'raw' }, { writable: true });
    await expect(opened).rejects.toMatchObject({ code: 'ERR_QCOW2_CORRUPT' });
    expect(raw.size).toBe(SIZE);
    await graph.changeBitmaps({ raw: [{ type: 'add', name: 'b' }] });
    expect(raw.bitmaps).toHaveLength(1);
  });

  test('gives it back when it is removed, as large as it has become, and for another image', async () => {
    await createQcow2('disk.qcow2', { size: SIZE });
    await using graph = new Graph();
    const node = await graph.add({ 'node-name': 'f', ...file('disk.qcow2') }, { writable: true });
    const before = node.size;
    const image = { 'node-name': 'image', driver: 'qcow2', file: 'f' } as const;
    for (const content of [pattern(SIZE), new Uint8Array(SIZE).fill(1)]) {
      await graph.add(image, { writable: true });
      const guest = await graph.addExport({ name: 'guest', node: 'image', writable: true });
      await guest.write(0, content);
      const bytes = new Uint8Array(SIZE);
      await guest.read(0, bytes);
      expect(Buffer.compare(bytes, content)).toBe(0);
      await guest.close();
      await graph.remove('image');
      expect(node.size).toBeGreaterThanOrEqual(before + SIZE);
      expect(node.size).toBe(statSync('disk.qcow2').size);
      const reader = await graph.addExport({ name: 'reader', node: 'f' });
      const raw = new Uint8Array(reader.size);
      await reader.read(0, raw);
      expect(Buffer.compare(raw, readFileSync('disk.qcow2'))).toBe(0);
      await reader.close();
    }
  });

  test('does not take bitmaps from it without a word', async () => {
    await createQcow2('disk.qcow2', { size: SIZE });
    await using graph = new Graph();
    const node = await graph.add({ 'node-name': 'f', ...file('disk.qcow2') }, { writable: true });
    await graph.changeBitmaps({ f: [{ type: 'add', name: 'b' }] });
    const opened = graph.add({ driver: 'qcow2', file: 'f' }, { writable: true });
    await expect(opened).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    expect(node.bitmaps).toHaveLength(1);
    await graph.changeBitmaps({ f: [{ type: 'remove', name: 'b' }] });
    await graph.add({ driver: 'qcow2', file: 'f' }, { writable: true });
  });
});

test('a graph closes everything, also where one part cannot be closed', async () => {
  const graph = new Graph();
  for (const name of ['a', 'b']) {
    await createQcow2(`${name}.qcow2`, { size: SIZE });
    const image = { driver: 'qcow2', file: file(`${name}.qcow2`) } as const;
    await graph.add({ 'node-name': name, ...image }, { writable: true });
  }
  graph.node('a').driver.close = () => Promise.reject(new Error('it cannot be closed'));
  await expect(graph.close()).rejects.toThrow('it cannot be closed');
  expect(graph.nodes).toEqual([]);
});

test('a graph that is closed lets nothing in that comes meanwhile', async () => {
  const graph = new Graph();
  await graph.addDevice('disk', fakeDevice(SIZE));
  const early = graph.addExport({ name: 'early', node: 'disk' });
  const closed = graph.close();
  const memory = { driver: 'memory', size: SIZE } as const;
  const late = [
    graph.add(memory),
    graph.addDevice('other', fakeDevice(SIZE)),
    graph.addExport({ name: 'guest', node: 'disk' }),
    graph.insertFilter({ filter: slow, above: 'disk' }),
    graph.openBackup({ nodes: ['disk'] }),
    graph.backup({ disks: [{ node: 'disk', target: memory }] }),
  ];
  for (const one of late) await expect(one).rejects.toMatchObject({ code: 'ERR_DEVICE_CLOSED' });
  await early;
  await closed;
  expect(graph.toJSON()).toEqual({ nodes: [], users: [], edges: [] });
});

describe('what went wrong first is told, and all is taken back, where a node cannot be closed either,', () => {
  const memory = { driver: 'memory', size: SIZE } as const;

  afterEach(() => {
    vi.restoreAllMocks();
  });

  async function twoDisks(): Promise<Graph> {
    const graph = new Graph();
    for (const name of ['a', 'b']) await graph.addDevice(name, fakeDevice(SIZE));
    vi.spyOn(MemoryDriver.prototype, 'close').mockRejectedValueOnce(new Error('cannot be closed'));
    return graph;
  }

  test('by a backup that cannot begin', async () => {
    const graph = await twoDisks();
    const opened = graph.openBackup({ nodes: ['a', 'b', 'nowhere'] });
    await expect(opened).rejects.toMatchObject({ code: 'ERR_GRAPH_UNKNOWN' });
    expect(graph.nodes.map(({ name }) => name)).toEqual(['a', 'b']);
  });

  test('by a backup job that cannot begin', async () => {
    const graph = await twoDisks();
    const disks = ['a', 'b', 'nowhere'].map((node) => ({ node, target: memory }));
    await expect(graph.backup({ disks })).rejects.toMatchObject({ code: 'ERR_GRAPH_UNKNOWN' });
    expect(graph.nodes.map(({ name }) => name)).toEqual(['a', 'b']);
    expect(graph.users).toEqual([]);
  });

  test('by a backup job that fails', async () => {
    const graph = await twoDisks();
    const disk = new ManualDisk(SIZE);
    await graph.addDevice('held', disk.device);
    const disks = ['held', 'a'].map((node) => ({ node, target: memory }));
    const job = graph.backup({ disks });
    while (disk.held[0]?.what !== 'read') {
      // The flush before the point in time.
      disk.held[0]?.release();
      await settled();
    }
    disk.isFree = true;
    for (const request of [...disk.held]) request.fail(false);
    await expect(job).rejects.toThrow('read at 0 failed by the test');
    expect(graph.nodes.map(({ name }) => name)).toEqual(['a', 'b', 'held']);
    expect(graph.users).toEqual([]);
  });
});

test('an export that closes holds up no change elsewhere while its requests end', async () => {
  const disk = new ManualDisk(SIZE);
  const graph = new Graph({ drainLimitMs: 2 ** 30 });
  await graph.addDevice('held', disk.device);
  await graph.addDevice('free', fakeDevice(SIZE));
  const guest = await graph.addExport({ name: 'guest', node: 'held' });
  const first = guest.read(0, new Uint8Array(10));
  const inserted = graph.insertFilter({ filter: slow, above: 'held' });
  await settled();
  const second = guest.read(20, new Uint8Array(10));
  await settled();
  const closed = guest.close();
  // First the read, then the flush that the change makes; the second read stays.
  for (const what of ['read', 'flush']) {
    expect(disk.held.map((one) => one.what)).toEqual([what]);
    disk.held[0].release();
    await settled();
  }
  await inserted;
  await settled();
  expect(disk.held.map(({ offset }) => offset)).toEqual([20]);
  await graph.insertFilter({ filter: { ...slow, 'node-name': 'other' }, above: 'free' });
  disk.held[0].release();
  await Promise.all([first, second, closed]);
  expect(graph.users).toEqual([]);
});

test('one device is not two nodes, nor an export of the graph itself', async () => {
  const graph = new Graph();
  const device = fakeDevice(SIZE);
  await graph.addDevice('a', device);
  await expect(graph.addDevice('b', device)).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
  const root = await graph.addExport({ name: 'guest', node: 'a' });
  await expect(graph.addDevice('b', root)).rejects.toThrow("export 'guest' leads to a node");
  await root.close();
  await graph.remove('a');
  await graph.addDevice('b', device);
});

test('bitmaps of several nodes are changed together, or none of them', async () => {
  await using graph = new Graph();
  for (const name of ['a', 'b']) await graph.addDevice(name, fakeDevice(SIZE));
  const added = { type: 'add', name: 'new' } as const;
  const changed = graph.changeBitmaps({ a: [added], b: [added, { type: 'clear', name: 'x' }] });
  await expect(changed).rejects.toMatchObject({ code: 'ERR_BITMAP_UNKNOWN' });
  expect(graph.nodes.map(({ bitmaps }) => bitmaps)).toEqual([[], []]);
});

test('a discard does nothing where the node that came in place of another one has none', async () => {
  await using graph = new Graph();
  await graph.addDevice('a', fakeDevice(SIZE));
  const memory = new MemoryDriver({ size: SIZE });
  const capabilities = { ...memory.capabilities, discard: false };
  const without = new Device(Object.assign(memory, { capabilities }));
  await without.write(0, pattern(SIZE));
  await graph.addDevice('b', without);
  const guest = await graph.addExport({ name: 'guest', node: 'a', writable: true });
  const swap = { parent: 'guest', child: 'root', expected: 'a', replacement: 'b' };
  await graph.replaceChild({ ...swap, unsafe: true });
  await guest.discard(0, SIZE);
  const bytes = new Uint8Array(SIZE);
  await guest.read(0, bytes);
  expect(Buffer.compare(bytes, pattern(SIZE))).toBe(0);
});

test('a persistent bitmap is refused where nothing would keep it', async () => {
  await createQcow2('disk.qcow2', { size: SIZE });
  await using graph = new Graph();
  await graph.addDevice('memory', fakeDevice(SIZE));
  await graph.add({ 'node-name': 'image', driver: 'qcow2', file: file('disk.qcow2') });
  for (const node of ['memory', 'image']) {
    const added = graph.changeBitmaps({ [node]: [{ type: 'add', name: 'b', persistent: true }] });
    await expect(added).rejects.toThrow("no place to keep bitmap 'b' in");
  }
});

describe('misuse has an error that says what is wrong', () => {
  test('for what is written', async () => {
    const graph = new Graph();
    await graph.addDevice('a', fakeDevice(SIZE));
    const guest = await graph.addExport({ name: 'guest', node: 'a', writable: true });
    await guest.write(0, pattern(10));
    const { signal } = new AbortController();
    const write = guest.write(0, 'abc' as never, { signal });
    await expect(write).rejects.toThrow('source must be a Uint8Array');
    const bytes = new Uint8Array(10);
    await guest.read(0, bytes);
    expect(bytes).toEqual(pattern(10));
  });

  test('for names, lists and filters', async () => {
    const graph = new Graph();
    await graph.addDevice('a', fakeDevice(SIZE));
    await graph.addExport({ name: 'guest', node: 'a' });
    const inserted = (more: object) => () =>
      graph.insertFilter({ filter: slow, above: 'a', ...more });
    expect(() => graph.addDevice('', fakeDevice(SIZE))).toThrow('name must be a text');
    expect(() => graph.addDevice('b', {} as never)).toThrow('must be a device that is open');
    expect(() => graph.addExport({ name: 5 as never, node: 'a' })).toThrow('name must be a text');
    const shares = 5 as never;
    expect(() => graph.addExport({ name: 'b', node: 'a', shares })).toThrow('must be a list');
    expect(inserted({ parents: 'guest' })).toThrow('parents must be a list');
    expect(inserted({ filter: { ...slow, file: 'b' } })).toThrow('leave "file" out');
    const actions = { type: 'add', name: 'b' } as never;
    expect(() => graph.changeBitmaps({ a: actions })).toThrow("bitmaps of 'a' must be a list");
  });
});
