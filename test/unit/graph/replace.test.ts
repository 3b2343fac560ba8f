import { openDevice } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { beforeEach, describe, expect, test } from 'vitest';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { ManualDisk, settled } from '../../support/manual-disk.js';

const SIZE = 4096;
const slow = { 'node-name': 'slow', driver: 'throttle', 'bytes-per-second': 1e12 } as const;

async function code(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error) => error.code ?? error.name,
  );
}

/** Which node each user has under which key. */
function uses(graph: Graph): string[] {
  return graph.toJSON().edges.map(({ parent, child, node }) => `${parent}.${child} = ${node}`);
}

let graph: Graph;

beforeEach(async () => {
  graph = new Graph({ drainLimitMs: 60_000 });
  await graph.addDevice('disk', fakeDevice(SIZE));
  await graph.addDevice('other', fakeDevice(SIZE));
});

describe('a filter', () => {
  test('comes between a node and its users, and goes again', async () => {
    const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    await guest.write(0, pattern(SIZE));
    await graph.insertFilter({ filter: slow, above: 'disk' });
    expect(uses(graph)).toEqual(['guest.root = slow', 'slow.file = disk']);
    const bytes = new Uint8Array(SIZE);
    await guest.read(0, bytes);
    expect(bytes).toEqual(pattern(SIZE));
    await guest.write(0, pattern(SIZE, 2));
    await graph.removeFilter('slow');
    expect(uses(graph)).toEqual(['guest.root = disk']);
    await guest.read(0, bytes);
    expect(bytes).toEqual(pattern(SIZE, 2));
    expect(graph.nodes.map(({ name }) => name)).toEqual(['disk', 'other']);
  });

  test('comes below those users alone that are named', async () => {
    await graph.addExport({ name: 'a', node: 'disk' });
    await graph.addExport({ name: 'b', node: 'disk' });
    await graph.insertFilter({ filter: slow, above: 'disk', parents: ['b'] });
    expect(uses(graph)).toEqual(['a.root = disk', 'b.root = slow', 'slow.file = disk']);
    const twice = {
      filter: { ...slow, 'node-name': 'slow-2' },
      above: 'disk',
      parents: ['b'],
    } as const;
    await expect(graph.insertFilter(twice)).rejects.toMatchObject({ code: 'ERR_GRAPH_UNKNOWN' });
    expect(uses(graph)).toHaveLength(3);
  });

  test('is refused where its driver is not a filter, and leaves nothing', async () => {
    await graph.addExport({ name: 'guest', node: 'disk' });
    const filter = { 'node-name': 'x', driver: 'qcow2' } as never;
    await expect(graph.insertFilter({ filter, above: 'disk' })).rejects.toThrow(
      'qcow2 is not a filter',
    );
    await expect(graph.removeFilter('disk')).rejects.toThrow("node 'disk' is not a filter");
    expect(uses(graph)).toEqual(['guest.root = disk']);
    expect(graph.nodes).toHaveLength(2);
  });
});

describe('a child is not replaced', () => {
  test('where another one is there than expected', async () => {
    await graph.addExport({ name: 'guest', node: 'disk' });
    await graph.add({ ...slow, file: 'disk' });
    const stale = { parent: 'guest', child: 'root', expected: 'other', replacement: 'slow' };
    await expect(graph.replaceChild(stale)).rejects.toMatchObject({
      code: 'ERR_GRAPH_EDGE_CHANGED',
      message: expect.stringContaining("export 'guest' leads to node 'disk', not to node 'other'"),
    });
    expect(uses(graph)).toContain('guest.root = disk');
  });

  test('by one of another size', async () => {
    await graph.addDevice('small', fakeDevice(SIZE / 2));
    await graph.addExport({ name: 'guest', node: 'disk' });
    const change = { parent: 'guest', child: 'root', expected: 'disk', replacement: 'small' };
    await expect(graph.replaceChild({ ...change, unsafe: true })).rejects.toThrow(
      "export 'guest' needs 4096 bytes, and node 'small' has 2048",
    );
  });

  test('by one that lies above its parent', async () => {
    await graph.add({ ...slow, file: 'disk' });
    await graph.add({ ...slow, 'node-name': 'slower', file: 'slow' });
    const change = { parent: 'slow', child: 'file', expected: 'disk', replacement: 'slower' };
    await expect(graph.replaceChild({ ...change, unsafe: true })).rejects.toThrow(
      "a circle of nodes: 'slower' > 'slow' > 'slower'",
    );
  });

  test('by one that shows another disk, unless that is meant', async () => {
    await graph.addExport({ name: 'guest', node: 'disk' });
    const change = { parent: 'guest', child: 'root', expected: 'disk', replacement: 'other' };
    expect(await code(graph.replaceChild(change))).toBe('ERR_GRAPH_CONFLICT');
    await graph.replaceChild({ ...change, unsafe: true });
    expect(uses(graph)).toEqual(['guest.root = other']);
  });

  test('by a name, a key or a parent that nobody has', async () => {
    await graph.addExport({ name: 'guest', node: 'disk' });
    const change = { parent: 'guest', child: 'root', expected: 'disk', replacement: 'other' };
    for (const wrong of [{ parent: 'x' }, { child: 'x' }, { replacement: 'x' }]) {
      expect(await code(graph.replaceChild({ ...change, ...wrong }))).toBe('ERR_GRAPH_UNKNOWN');
    }
    await expect(graph.replaceChild({ ...change, expected: 'x' })).rejects.toThrow("no node 'x'");
  });
});

test('a filter that was made while its place was replaced does not bring the old node back', async () => {
  await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  // Somebody makes a throttle over the disk, and is about to put it in its place...
  const throttle = await graph.add({ ...slow, file: 'disk' }, { writable: true });
  const intent = {
    parent: 'guest',
    child: 'root',
    expected: graph.node('disk'),
    replacement: throttle,
  };
  // ... when a mirror completes: the guest has another disk, and the old one goes.
  await graph.replaceChild({
    parent: 'guest',
    child: 'root',
    expected: 'disk',
    replacement: 'other',
    unsafe: true,
  });
  expect(await code(graph.replaceChild(intent))).toBe('ERR_GRAPH_EDGE_CHANGED');
  expect(uses(graph)).toEqual(['guest.root = other', 'slow.file = disk']);
  await graph.remove('slow');
  await graph.remove('disk');
  // Another node of that name is not the one that was expected.
  await graph.addDevice('disk', fakeDevice(SIZE));
  const again = { ...intent, replacement: 'disk' };
  expect(await code(graph.replaceChild(again))).toBe('ERR_GRAPH_EDGE_CHANGED');
  expect(uses(graph)).toEqual(['guest.root = other']);
});

describe('several replacements', () => {
  test('happen at one moment, also where each alone would be refused', async () => {
    await graph.addExport({ name: 'a', node: 'disk', writable: true, shares: ['read'] });
    await graph.addExport({ name: 'b', node: 'other', writable: true, shares: ['read'] });
    const change = (parent: string, expected: string, replacement: string) => ({
      ...{ parent, child: 'root', expected, replacement },
      unsafe: true,
    });
    expect(await code(graph.replaceChild(change('a', 'disk', 'other')))).toBe('ERR_GRAPH_CONFLICT');
    await graph.replaceChild([change('a', 'disk', 'other'), change('b', 'other', 'disk')]);
    expect(uses(graph)).toEqual(['a.root = other', 'b.root = disk']);
  });

  test('do not happen at all where one cannot', async () => {
    await graph.addExport({ name: 'a', node: 'disk' });
    await graph.addExport({ name: 'b', node: 'disk' });
    const change = (parent: string, expected: string) => ({
      ...{ parent, child: 'root', expected, replacement: 'other', unsafe: true },
    });
    const both = graph.replaceChild([change('a', 'disk'), change('b', 'other')]);
    expect(await code(both)).toBe('ERR_GRAPH_EDGE_CHANGED');
    expect(uses(graph)).toEqual(['a.root = disk', 'b.root = disk']);
  });
});

test('bitmaps above a replaced child are dirty all over, whether they record or not', async () => {
  await graph.add({ ...slow, file: 'disk' });
  await graph.add({ ...slow, 'node-name': 'upper', file: 'slow' });
  await graph.changeBitmaps({
    slow: [{ type: 'add', name: 'records' }],
    upper: [{ type: 'add', name: 'rests', disabled: true }],
    disk: [{ type: 'add', name: 'below' }],
  });
  await graph.replaceChild({
    ...{ parent: 'slow', child: 'file', expected: 'disk', replacement: 'other' },
    unsafe: true,
  });
  const dirtyBytes = (node: string) => graph.node(node).bitmaps.map((each) => each.dirtyBytes);
  expect(dirtyBytes('slow')).toEqual([SIZE]);
  expect(dirtyBytes('upper')).toEqual([SIZE]);
  expect(dirtyBytes('disk')).toEqual([0]);
});

describe('a change', () => {
  let disk: ManualDisk;

  beforeEach(async () => {
    disk = new ManualDisk(SIZE);
    await graph.addDevice('held', disk.device);
  });

  test('waits for requests in flight, and holds up those that come meanwhile', async () => {
    const guest = await graph.addExport({ name: 'guest', node: 'held', writable: true });
    const first = guest.write(0, pattern(10));
    const inserted = graph.insertFilter({ filter: slow, above: 'held' });
    await settled();
    const second = guest.write(20, pattern(10));
    await settled();
    expect(disk.held.map(({ offset }) => offset)).toEqual([0]);
    expect(uses(graph)).toContain('guest.root = held');
    disk.isFree = true;
    disk.held[0].release();
    await Promise.all([first, inserted, second]);
    expect(uses(graph)).toContain('guest.root = slow');
    expect(disk.bytes.subarray(20, 30)).toEqual(pattern(10));
  });

  test('is given up where requests do not end in time, says whose they are, and leaves all as it was', async () => {
    const impatient = new Graph({ drainLimitMs: 20 });
    await impatient.addDevice('held', disk.device);
    const guest = await impatient.addExport({ name: 'guest', node: 'held', writable: true });
    const write = guest.write(0, pattern(10));
    const inserted = impatient.insertFilter({ filter: slow, above: 'held' });
    await expect(inserted).rejects.toMatchObject({
      code: 'ERR_GRAPH_BUSY',
      message: expect.stringContaining("1 of export 'guest'"),
    });
    expect(uses(impatient)).toEqual(['guest.root = held']);
    expect(impatient.nodes).toHaveLength(1);
    disk.isFree = true;
    disk.held[0].release();
    await write;
    // The gate is open again.
    await guest.write(20, pattern(10));
    await impatient.insertFilter({ filter: slow, above: 'held' });
    await impatient.close();
  });

  test('waits for a write whose caller has gone, and who may change its bytes', async () => {
    const guest = await graph.addExport({ name: 'guest', node: 'held', writable: true });
    const caller = new AbortController();
    const bytes = pattern(10);
    const write = guest.write(0, bytes, { signal: caller.signal });
    await settled();
    caller.abort();
    await expect(write).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    bytes.fill(0);
    const inserted = graph.insertFilter({ filter: slow, above: 'held' });
    await settled();
    expect(uses(graph)).toContain('guest.root = held');
    disk.isFree = true;
    disk.held[0].release();
    await inserted;
    expect(disk.bytes.subarray(0, 10)).toEqual(pattern(10));
  });

  test('drops what waits for it when the caller goes', async () => {
    const guest = await graph.addExport({ name: 'guest', node: 'held', writable: true });
    const first = guest.write(0, pattern(10));
    const inserted = graph.insertFilter({ filter: slow, above: 'held' });
    await settled();
    const caller = new AbortController();
    const second = guest.write(20, pattern(10), { signal: caller.signal });
    await settled();
    caller.abort();
    await expect(second).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    disk.isFree = true;
    disk.held[0].release();
    await Promise.all([first, inserted]);
    expect(disk.bytes.subarray(20, 30)).toEqual(new Uint8Array(10));
  });

  test('does not wait for exports that do not come to its nodes', async () => {
    await graph.addExport({ name: 'guest', node: 'held', writable: true });
    const [guest] = graph.users;
    const write = guest.write(0, pattern(10));
    await graph.addExport({ name: 'elsewhere', node: 'disk' });
    await graph.insertFilter({ filter: slow, above: 'disk' });
    disk.isFree = true;
    disk.held[0].release();
    await write;
  });

  test('does not come before one that was asked for earlier', async () => {
    const guest = await graph.addExport({ name: 'guest', node: 'held', writable: true });
    const write = guest.write(0, pattern(10));
    const inserted = graph.insertFilter({ filter: slow, above: 'held' });
    const removed = graph.removeFilter('slow');
    const closed = guest.close();
    disk.isFree = true;
    await settled();
    disk.held[0].release();
    await Promise.all([write, inserted, removed, closed]);
    expect(uses(graph)).toEqual([]);
  });
});

test('a filter that makes requests wait lets them go when it is changed', async () => {
  const disk = new ManualDisk(SIZE);
  disk.isFree = true;
  await graph.addDevice('held', disk.device);
  const guest = await graph.addExport({ name: 'guest', node: 'held', writable: true });
  const choked = { 'node-name': 'choked', driver: 'throttle', 'bytes-per-second': 1 } as const;
  await graph.insertFilter({ filter: choked, above: 'held' });
  const writes = [0, 1000, 2000].map((offset) => guest.write(offset, pattern(1000)));
  await settled();
  await graph.insertFilter({ filter: slow, above: 'choked' });
  await graph.removeFilter('choked');
  await Promise.all(writes);
  await guest.write(3000, pattern(1000));
  expect(disk.bytes.subarray(2000, 3000)).toEqual(pattern(1000));
});

test('throttles of one group share their rate, and those of another one do not', async () => {
  const own = new Graph();
  const add = async (name: string, group: string) => {
    const disk = new ManualDisk(SIZE);
    disk.isFree = true;
    await own.addDevice(name, disk.device);
    const throttle = { driver: 'throttle', 'node-name': `${name}-slow` } as const;
    const guest = await own.addExport({ name: `${name}-guest`, node: name, writable: true });
    const rate = { 'throttle-group': group, 'bytes-per-second': 1 } as const;
    await own.insertFilter({ filter: { ...throttle, ...rate }, above: name });
    return guest;
  };
  const [a, b, c] = [await add('a', 'same'), await add('b', 'same'), await add('c', 'other')];
  await a.write(0, pattern(1000));
  let isDone = false;
  const waiting = b.write(0, pattern(1000)).then(() => {
    isDone = true;
  });
  await c.write(0, pattern(1000));
  await settled();
  expect(isDone).toBe(false);
  await own.removeFilter('b-slow');
  await waiting;
  await own.close();
});

test('a throttle that names a group outside a graph is refused', async () => {
  const alone = { driver: 'throttle', 'throttle-group': 'g', file: { driver: 'null', size: 512 } };
  await expect(openDevice(alone as never)).rejects.toThrow(/for nodes of a graph/);
});
