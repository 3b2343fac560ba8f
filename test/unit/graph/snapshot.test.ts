import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { resolve } from 'node:path';
import { createQcow2, createRawFile, openBitmaps, openDevice } from 'lacuna';
import { Graph, type SnapshotDisk } from 'lacuna/graph';
import { describe, expect, test } from 'vitest';
import { everyOrder } from '../../support/every-order.js';
import { pattern } from '../../support/fake-device.js';
import { ManualDisk, settled } from '../../support/manual-disk.js';
import { playInOrder } from '../../support/play-in-order.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const G = 65_536;
const SIZE = 8 * G;
const file = (filename: string) => ({ driver: 'file', filename }) as const;
const image = (filename: string) => ({ driver: 'qcow2', file: file(filename) }) as const;
const overlay = (name: string) => ({ 'node-name': name, ...image(`${name}.qcow2`) }) as const;
const filled = (value: number, granules = 1) => new Uint8Array(granules * G).fill(value);

/** A disk in an image that a guest writes. */
async function setUp() {
  await createQcow2('disk.qcow2', { size: SIZE });
  const graph = new Graph();
  await graph.add({ 'node-name': 'disk', ...image('disk.qcow2') }, { writable: true });
  const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  await guest.write(0, filled(1, 8));
  return { graph, guest };
}

async function contentOf(source: string): Promise<Uint8Array> {
  await using device = await openDevice(source, { forceShare: true });
  const bytes = new Uint8Array(device.size);
  await device.read(0, bytes);
  return bytes;
}

async function dirty(graph: Graph, node: string, name: string): Promise<number[]> {
  const bitmap = await graph.node(node).bitmap(name);
  return [...bitmap.ranges()].flatMap(({ offset, length }) =>
    Array.from({ length: length / G }, (_, i) => offset / G + i),
  );
}

describe('a snapshot', () => {
  test('leaves the old layer as it was at its moment, and the new one takes what is written', async () => {
    const { graph, guest } = await setUp();
    await graph.create({ image: overlay('top'), over: 'disk' });
    const [top] = await graph.snapshot({ disks: [{ node: 'disk', overlay: overlay('top') }] });
    expect(top.name).toBe('top');
    expect(graph.edges.slice(0, 3)).toEqual([
      { parent: 'disk', child: 'file', node: 'disk.file' },
      { parent: 'guest', child: 'root', node: 'top' },
      { parent: 'top', child: 'file', node: 'top.file' },
    ]);
    const beside = graph.addExport({ name: 'beside', node: 'disk', writable: true });
    await expect(beside).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    await guest.write(2 * G, filled(2));
    await guest.zero(3 * G, G);
    const shown = new Uint8Array(SIZE);
    await guest.read(0, shown);
    const expected = filled(1, 8);
    expected.fill(2, 2 * G, 3 * G).fill(0, 3 * G, 4 * G);
    expect(shown).toEqual(expected);
    await graph.close();
    expect(await contentOf('disk.qcow2')).toEqual(filled(1, 8));
    expect(await contentOf('top.qcow2')).toEqual(expected);
  });

  test('lies below the filters of the node, and above it another one can follow', async () => {
    const { graph, guest } = await setUp();
    const filter = { driver: 'throttle', 'node-name': 'slow', 'requests-per-second': 1e9 } as const;
    await graph.insertFilter({ filter, above: 'disk' });
    for (const [node, name] of [
      ['disk', 'a'],
      ['a', 'b'],
    ]) {
      await graph.create({ image: overlay(name), over: node });
      await graph.snapshot({ disks: [{ node, overlay: overlay(name) }] });
      await guest.write(0, filled(node === 'a' ? 3 : 2));
    }
    expect(guest.node.name).toBe('slow');
    const usesOf = (parent: string) => graph.edges.filter((edge) => edge.parent === parent);
    const chain = ['guest', 'slow', 'b', 'a'].map((parent) => usesOf(parent).at(-1)?.node);
    expect(chain).toEqual(['slow', 'b', 'a', 'disk']);
    await graph.close();
    const firsts = await Promise.all(['disk', 'a', 'b'].map((name) => contentOf(`${name}.qcow2`)));
    expect(firsts.map(([first]) => first)).toEqual([1, 2, 3]);
  });

  test('of a raw disk, and of several disks at one moment, whatever their writers do', async () => {
    for (const name of ['x', 'y']) await createRawFile(`${name}.raw`, SIZE);
    const graph = new Graph();
    const guests = [];
    for (const name of ['x', 'y']) {
      await graph.add({ 'node-name': name, ...file(`${name}.raw`) }, { writable: true });
      guests.push(await graph.addExport({ name: `guest-${name}`, node: name, writable: true }));
      await graph.create({ image: overlay(`${name}1`), over: name });
    }
    // First one disk, then the other: at no moment does the second have a number that the first has not.
    let number = 0;
    let isOver = false;
    const writes = (async () => {
      while (!isOver) {
        number++;
        for (const guest of guests) await guest.write(0, new Uint8Array(512).fill(number));
        await settled();
      }
    })();
    await settled();
    await graph.snapshot({
      disks: ['x', 'y'].map((node) => ({ node, overlay: overlay(`${node}1`) })),
    });
    isOver = true;
    await writes;
    await graph.close();
    const [[x], [y]] = [await contentOf('x.raw'), await contentOf('y.raw')];
    expect([x, x - 1]).toContain(y);
    expect((await contentOf('x1.qcow2'))[0]).toBe(number % 256);
    expect((await contentOf('y1.qcow2'))[0]).toBe(number % 256);
  });

  test('flushes the old layer before it loses its users', async () => {
    const graph = new Graph();
    const disk = new ManualDisk(SIZE, 'disk');
    disk.isFree = true;
    await graph.addDevice('disk', disk.device);
    const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    await guest.write(0, filled(1));
    await createQcow2('top.qcow2', { size: SIZE });
    const seen: string[] = [];
    disk.onFlush = () => void seen.push(guest.node.name);
    await graph.snapshot({ disks: [{ node: 'disk', overlay: overlay('top') }] });
    expect(seen).toEqual(['disk']);
  });

  test('gives bitmaps that go on in the new layer, or copies, or none', async () => {
    const carried: [SnapshotDisk['bitmaps'], unknown[], number[][]][] = [
      [undefined, [{ name: 'a', recording: true, persistent: true }], [[3]]],
      [
        'copy',
        [
          { name: 'b', recording: false, persistent: false },
          { name: 'a', recording: true, persistent: true },
        ],
        [[1], [2, 3]],
      ],
      ['none', [], []],
    ];
    for (const [bitmaps, infos, bits] of carried) {
      for (const name of ['disk', 'top'])
        await createQcow2(`${name}.qcow2`, {
          size: SIZE,
          ...(name === 'top' && { backing: { filename: 'disk.qcow2', format: 'qcow2' } }),
        });
      const graph = new Graph();
      await graph.add({ 'node-name': 'disk', ...image('disk.qcow2') }, { writable: true });
      const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
      await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b' }] });
      await guest.write(G, filled(1));
      await graph.changeBitmaps({
        disk: [
          { type: 'disable', name: 'b' },
          { type: 'add', name: 'a', persistent: true },
        ],
      });
      await guest.write(2 * G, filled(1));
      const disk = { node: 'disk', overlay: overlay('top'), ...(bitmaps && { bitmaps }) };
      const [top] = await graph.snapshot({ disks: [disk] });
      await guest.write(3 * G, filled(1));
      expect(top.bitmaps).toMatchObject(infos);
      expect(top.bitmaps).toHaveLength(infos.length);
      for (const [i, { name }] of top.bitmaps.entries()) {
        expect(await dirty(graph, 'top', name)).toEqual(bits[i]);
      }
      expect(await dirty(graph, 'disk', 'a')).toEqual([2]);
      await graph.close();
      await using stored = await openBitmaps('top.qcow2');
      expect(stored.bitmaps.list().map(({ name, inconsistent }) => [name, inconsistent])).toEqual(
        bitmaps === 'none' ? [] : [['a', false]],
      );
    }
  });

  test('goes on beside a backup job and a populate, which are of the old layer', async () => {
    const { graph, guest } = await setUp();
    await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b' }] });
    await graph.create({ image: overlay('top'), over: 'disk' });
    await createRawFile('target.raw', SIZE);
    const backup = graph.backup({
      disks: [{ node: 'disk', target: file('target.raw') }],
      bitmap: 'b',
      sync: 'full',
    });
    await guest.write(0, filled(7));
    await graph.snapshot({ disks: [{ node: 'disk', overlay: overlay('top') }] });
    await guest.write(G, filled(8));
    await backup;
    await graph.populate({
      from: 'allocation',
      sources: [{ node: 'top' }],
      targets: [{ node: 'top', bitmap: 'b' }],
    });
    expect(await dirty(graph, 'top', 'b')).toEqual([1]);
    await graph.close();
    const copied = await contentOf('target.raw');
    expect([1, 7]).toContain(copied[0]);
    expect(copied.subarray(G)).toEqual(filled(1, 7));
  });
});

test('whatever order two writes and a snapshot come in, each write is in one layer, and none lands below after it', async () => {
  await createQcow2('top.qcow2', { size: 4096 });
  const orders = await everyOrder(async (choose) => {
    const graph = new Graph({ drainLimitMs: 2 ** 30 });
    const disk = new ManualDisk(4096, 'disk');
    await graph.addDevice('disk', disk.device);
    const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    await createQcow2('top.qcow2', { size: 4096, clusterSize: 512 });
    let before = new Uint8Array();
    await playInOrder(
      choose,
      [disk],
      [
        () => guest.write(0, pattern(512)),
        () => guest.write(1024, pattern(512)),
        () =>
          graph.snapshot({ disks: [{ node: 'disk', overlay: overlay('top') }] }).then(() => {
            before = disk.bytes.slice();
          }),
      ],
    );
    expect(disk.bytes).toEqual(before);
    disk.isFree = true;
    const shown = new Uint8Array(4096);
    await guest.read(0, shown);
    const expected = new Uint8Array(4096);
    for (const at of [0, 1024]) expected.set(pattern(512), at);
    expect(shown).toEqual(expected);
    await graph.close();
  });
  expect(orders).toBeGreaterThan(20);
});

test('a snapshot takes an image whose folder is a symbolic link, and that names its base from where the link leads', async () => {
  mkdirSync('disks/vm', { recursive: true });
  symlinkSync(resolve('disks/vm'), 'vm');
  await createRawFile('disks/disk.raw', SIZE);
  const backing = { filename: '../disk.raw', format: 'raw' } as const;
  await createQcow2('disks/vm/top.qcow2', { size: SIZE, backing });
  await using graph = new Graph();
  await graph.add({ 'node-name': 'disk', ...file('disks/disk.raw') }, { writable: true });
  const disks = [{ node: 'disk', overlay: image('vm/top.qcow2') }];
  const [top] = await graph.snapshot({ disks });
  expect(top.size).toBe(SIZE);
});

describe('a snapshot is refused, and changes nothing,', () => {
  async function refused(disk: Partial<SnapshotDisk>, graph: Graph): Promise<string> {
    const before = JSON.stringify(graph);
    const taken = graph.snapshot({
      disks: [{ node: 'disk', overlay: overlay('top'), ...disk } as SnapshotDisk],
    });
    const error = await taken.then(
      () => new Error('it was taken'),
      (failure: Error) => failure,
    );
    expect(JSON.stringify(graph)).toBe(before);
    return `${(error as { code?: string }).code}: ${error.message}`;
  }

  test('where the new layer holds something, or is not over the node, or has another size', async () => {
    const { graph, guest } = await setUp();
    const over = (filename: string) => ({ backing: { filename, format: 'qcow2' } });
    await createQcow2('top.qcow2', { size: SIZE, ...over('disk.qcow2') });
    {
      const alone = { ...image('top.qcow2'), backing: null };
      await using device = await openDevice(alone, { writable: true });
      await device.write(0, filled(1));
    }
    expect(await refused({}, graph)).toMatch(/ERR_GRAPH_CONFLICT.*holds something already/);
    await createQcow2('top.qcow2', { size: SIZE });
    expect(await refused({}, graph)).toMatch(/ERR_GRAPH_CONFLICT.*names no backing file/);
    await createQcow2('other.qcow2', { size: SIZE });
    await createQcow2('top.qcow2', { size: SIZE, ...over('other.qcow2') });
    expect(await refused({}, graph)).toMatch(
      /ERR_GRAPH_CONFLICT.*other.qcow2 .qcow2. as its backing/,
    );
    const raw = { filename: 'disk.qcow2', format: 'raw' };
    await createQcow2('top.qcow2', { size: SIZE, backing: raw });
    expect(await refused({}, graph)).toMatch(/ERR_GRAPH_CONFLICT.*disk.qcow2 \(raw\) as its/);
    await createQcow2('top.qcow2', { size: 2 * SIZE, ...over('disk.qcow2') });
    expect(await refused({}, graph)).toMatch(/ERR_GRAPH_CONFLICT.*same size/);
    await guest.write(0, filled(9));
    await guest.flush();
    expect((await contentOf('disk.qcow2'))[0]).toBe(9);
  });

  test('of the file of an image, of what a filter keeps its copies in, and of nothing', async () => {
    const { graph } = await setUp();
    await createQcow2('top.qcow2', { size: SIZE });
    expect(await refused({ node: 'disk.file' }, graph)).toMatch(/file of an image/);
    expect(await refused({ node: 'nowhere' }, graph)).toMatch(/ERR_GRAPH_UNKNOWN/);
    await createRawFile('scratch.raw', SIZE);
    await graph.add({ 'node-name': 'scratch', ...file('scratch.raw') }, { writable: true });
    const filter = { driver: 'copy-before-write', 'node-name': 'keep', target: 'scratch' } as const;
    await graph.insertFilter({ filter, above: 'disk' });
    await createQcow2('top.qcow2', {
      size: SIZE,
      backing: { filename: 'scratch.raw', format: 'raw' },
    });
    expect(await refused({ node: 'scratch' }, graph)).toMatch(/keeps what it stores/);
  });

  test('as misuse', async () => {
    await using graph = new Graph();
    const wrong: [object, string][] = [
      [{ disks: [] }, 'disks must be a list'],
      [{ disks: [{ node: 'a', overlay: {}, bitmaps: 'all' }] }, 'bitmaps must be'],
      [{ disks: [{ node: 'a', overlay: { backing: 'b' } }] }, 'leave "backing" out'],
      [
        {
          disks: [
            { node: 'a', overlay: {} },
            { node: 'a', overlay: {} },
          ],
        },
        'each node once',
      ],
    ];
    for (const [options, message] of wrong) {
      await expect(graph.snapshot(options as never)).rejects.toThrow(message);
    }
  });
});

describe('a create', () => {
  test('makes a raw file, and an image over a node, beside it by its name and elsewhere by its path', async () => {
    const { graph } = await setUp();
    const made = await graph.create({ image: file('new.raw'), size: 5 * G });
    expect(made).toMatchObject({ size: 5 * G });
    expect((await contentOf('new.raw')).length).toBe(5 * G);
    await graph.create({ image: overlay('top'), over: 'disk', clusterSize: 4096 });
    const node = await graph.add({ ...overlay('top'), backing: null });
    expect(node.device.details).toMatchObject({
      backingFile: 'disk.qcow2',
      backingFormat: 'qcow2',
      clusterSize: 4096,
    });
    await graph.close();
  });

  test('over a filter that copies what is read names the image below that', async () => {
    const { graph } = await setUp();
    const filter = { 'node-name': 'pulled', driver: 'copy-on-read' } as const;
    await graph.insertFilter({ filter, above: 'disk' });
    await graph.create({ image: overlay('top'), over: 'pulled' });
    await graph.close();
    await using top = await openDevice('top.qcow2');
    expect(top.details).toMatchObject({ backingFile: 'disk.qcow2', backingFormat: 'qcow2' });
  });

  test('replaces nothing, and leaves nothing where it fails', async () => {
    const { graph } = await setUp();
    const again = graph.create({ image: image('disk.qcow2'), size: SIZE });
    await expect(again).rejects.toMatchObject({ code: 'ERR_DEVICE_OPEN' });
    const odd = graph.create({ image: image('odd.qcow2'), size: SIZE, clusterSize: 1000 });
    await expect(odd).rejects.toBeInstanceOf(RangeError);
    expect(existsSync('odd.qcow2')).toBe(false);
    await graph.addDevice('memory', new ManualDisk(SIZE).device);
    const nameless = graph.create({ image: image('odd.qcow2'), over: 'memory' });
    await expect(nameless).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    await graph.close();
  });

  test('is refused as misuse', async () => {
    await using graph = new Graph();
    const wrong: [object, string][] = [
      [{ image: { driver: 'memory', size: 5 }, size: 5 }, 'image must be'],
      [{ image: file('a') }, 'say a size'],
      [{ image: file('a'), over: 'b' }, 'lies over nothing'],
      [{ image: file('a'), size: 1, clusterSize: 512 }, 'has no clusters'],
    ];
    for (const [options, message] of wrong) {
      expect(() => graph.create(options as never)).toThrow(message);
    }
  });
});
