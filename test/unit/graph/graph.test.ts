import { createRawFile, openDevice } from 'lacuna';
import { Graph, type NodeDescription } from 'lacuna/graph';
import { describe, expect, test } from 'vitest';
import { createQcow2 } from '#dist/block/index.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const SIZE = 1024 * 1024;
const file = (filename: string) => ({ driver: 'file', filename }) as const;

async function code(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error) => error.code ?? error.name,
  );
}

async function chain(): Promise<void> {
  await createRawFile('base.raw', SIZE);
  await createQcow2('top.qcow2', {
    size: SIZE,
    backing: { filename: 'base.raw', format: 'raw' },
  });
}

describe('a graph', () => {
  test('makes a node of each device that a description has, and of those that an image names', async () => {
    await chain();
    await using graph = new Graph();
    await graph.add({ 'node-name': 'top', driver: 'qcow2', file: file('top.qcow2') });
    const { nodes, edges } = graph.toJSON();
    expect(nodes.map(({ name, driver, writable }) => [name, driver, writable])).toEqual([
      ['top.file', 'file', false],
      ['top.backing', 'file', false],
      ['top', 'qcow2', false],
    ]);
    expect(edges).toEqual([
      { parent: 'top', child: 'file', node: 'top.file' },
      { parent: 'top', child: 'backing', node: 'top.backing' },
    ]);
  });

  test('takes the name of a node where a description may stand', async () => {
    await chain();
    await using graph = new Graph();
    await graph.add({ 'node-name': 'base', ...file('base.raw') });
    await graph.add({ 'node-name': 'protocol', ...file('top.qcow2') }, { writable: true });
    await graph.add(
      { 'node-name': 'top', driver: 'qcow2', file: 'protocol', backing: 'base' },
      { writable: true },
    );
    const top = await graph.addExport({ name: 'guest', node: 'top', writable: true });
    await top.write(70_000, pattern(5000));
    await graph.close();
    await using device = await openDevice('top.qcow2');
    const bytes = new Uint8Array(5000);
    await device.read(70_000, bytes);
    expect(bytes).toEqual(pattern(5000));
  });

  test('keeps nothing of a description of which a part cannot be opened', async () => {
    await chain();
    await using graph = new Graph();
    const description = {
      'node-name': 'top',
      driver: 'qcow2',
      file: file('top.qcow2'),
      backing: file('nowhere.raw'),
    } as const;
    expect(await code(graph.add(description, { writable: true }))).toBe('ERR_DEVICE_OPEN');
    expect(graph.toJSON()).toEqual({ nodes: [], users: [], edges: [] });
    // The lock is given back too.
    await using device = await openDevice('top.qcow2', { writable: true });
    expect(device.size).toBe(SIZE);
  });

  test('refuses a name that is taken, and one that nobody has', async () => {
    await using graph = new Graph();
    const memory = { 'node-name': 'disk', driver: 'memory', size: SIZE } as const;
    await graph.add(memory);
    expect(await code(graph.add(memory))).toBe('ERR_GRAPH_EXISTS');
    expect(await code(graph.addExport({ name: 'disk', node: 'disk' }))).toBe('ERR_GRAPH_EXISTS');
    const over = { driver: 'throttle', file: 'dsik' } as const;
    await expect(graph.add(over)).rejects.toThrow("no node 'dsik' in this graph: there are 'disk'");
    expect(() => graph.node('other')).toThrow("no node 'other'");
    const twice = { 'node-name': 'a', driver: 'throttle', file: memory } as NodeDescription;
    expect(await code(graph.add({ ...twice, 'node-name': 'disk' }))).toBe('ERR_GRAPH_EXISTS');
    expect(graph.nodes.map(({ name }) => name)).toEqual(['disk']);
  });

  test('refuses descriptions with keys that nobody knows', async () => {
    await using graph = new Graph();
    const wrong = { driver: 'memory', size: SIZE, colour: 'red' } as never;
    await expect(graph.add(wrong)).rejects.toThrow('colour is unknown');
    await expect(graph.add({ driver: 'throttle', file: 1 } as never)).rejects.toThrow(TypeError);
    await expect(graph.add('disk.raw' as never)).rejects.toThrow(
      "a new node needs a description, such as { driver, ... }, not 'disk.raw'",
    );
  });

  test('closes what was made with a node when the node goes, but not what others use', async () => {
    await chain();
    await using graph = new Graph();
    await graph.add({ 'node-name': 'base', ...file('base.raw') });
    await graph.add({
      'node-name': 'top',
      driver: 'qcow2',
      file: file('top.qcow2'),
      backing: 'base',
    });
    await expect(graph.remove('base')).rejects.toThrow("is used as backing of node 'top'");
    await graph.remove('top');
    expect(graph.nodes.map(({ name }) => name)).toEqual(['base']);
    await graph.remove('base');
    await using device = await openDevice('base.raw', { writable: true });
    expect(device.size).toBe(SIZE);
  });

  test('has devices of others as nodes, and leaves them open', async () => {
    const device = fakeDevice(SIZE);
    const graph = new Graph();
    await graph.addDevice('mine', device);
    const guest = await graph.addExport({ name: 'guest', node: 'mine', writable: true });
    await guest.write(5, pattern(10));
    await guest.zero(8, 2);
    await guest.flush();
    await graph.close();
    const bytes = new Uint8Array(10);
    await device.read(5, bytes);
    const expected = pattern(10);
    expected.fill(0, 3, 5);
    expect(bytes).toEqual(expected);
    expect(await code(guest.read(0, bytes))).toBe('ERR_DEVICE_CLOSED');
  });

  test('shows itself as JSON and as a picture', async () => {
    await using graph = new Graph();
    await graph.add({
      'node-name': 'slow "disk"',
      driver: 'throttle',
      file: { 'node-name': 'disk', driver: 'memory', size: SIZE },
    });
    await graph.addExport({ name: 'guest', node: 'slow "disk"' });
    expect(JSON.parse(JSON.stringify(graph))).toMatchObject({
      nodes: [
        { name: 'disk', driver: 'memory', size: SIZE, device: 'memory', bitmaps: [] },
        { name: 'slow "disk"', driver: 'throttle' },
      ],
      users: [{ name: 'guest', kind: 'export', writable: false }],
    });
    expect(graph.toDot()).toBe(
      [
        'digraph {',
        '  "guest" [shape=ellipse, label="export guest"];',
        '  "disk" [shape=box, label="disk\\nmemory"];',
        '  "slow \\"disk\\"" [shape=box, label="slow \\"disk\\"\\nthrottle"];',
        '  "slow \\"disk\\"" -> "disk" [label="file"];',
        '  "guest" -> "slow \\"disk\\"" [label="root"];',
        '}',
        '',
      ].join('\n'),
    );
  });
});

describe('the status of a node', () => {
  test('is asked without an export, in turn with changes, and of no node that is gone', async () => {
    await using graph = new Graph();
    const node = await graph.add({ 'node-name': 'disk', driver: 'null', size: 1 << 20 });
    const asked = graph.someExtents('disk', 4096, 8192);
    const removed = graph.remove('disk');
    const [list] = await asked;
    expect([list.offset, list.end]).toEqual([4096, 4096 + 8192]);
    await removed;
    await expect(graph.someExtents(node, 0, 512)).rejects.toMatchObject({
      code: 'ERR_GRAPH_UNKNOWN',
    });
  });
});

describe('an export of a graph', () => {
  test('that is only for reading refuses every change', async () => {
    await using graph = new Graph();
    await graph.addDevice('disk', fakeDevice(SIZE));
    const reader = await graph.addExport({ name: 'reader', node: 'disk' });
    expect(reader.capabilities).toMatchObject({ write: false, zero: false, discard: false });
    for (const change of [
      reader.write(0, new Uint8Array(1)),
      reader.zero(0, 1),
      reader.discard(0, 1),
    ]) {
      expect(await code(change)).toBe('ERR_DEVICE_UNSUPPORTED');
    }
  });

  test('answers status, and what a signal ends', async () => {
    await using graph = new Graph();
    await graph.addDevice('disk', fakeDevice(SIZE));
    const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    await guest.write(0, new Uint8Array(65_536).fill(1));
    const [list] = await guest.extents(0, SIZE);
    expect([...list].map(({ length, flags }) => [length, flags])).toEqual([
      [65_536, 1],
      [SIZE - 65_536, 6],
    ]);
    const signal = AbortSignal.abort();
    expect(await code(guest.read(0, new Uint8Array(1), { signal }))).toBe('ERR_ABORTED');
  });
});
