import { copyFileSync } from 'node:fs';
import { createQcow2, createRawFile, openBitmaps, openDevice } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { expect, test } from 'vitest';
import { pattern } from '../../support/fake-device.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const G = 65_536;
const SIZE = 8 * G;
const file = (filename: string) => ({ driver: 'file', filename }) as const;
const image = (filename: string) => ({ driver: 'qcow2', file: file(filename) }) as const;

async function write(path: string, bytes: Uint8Array, offset = 0): Promise<void> {
  await using device = await openDevice(path, { writable: true });
  await device.write(offset, bytes);
}

test('what is zeroed behind a short backing stays zero when a longer one comes in its place', async () => {
  await createRawFile('base.raw', SIZE);
  await write('base.raw', pattern(SIZE));
  await createRawFile('middle.raw', 2 * G);
  await createQcow2('top.qcow2', {
    size: SIZE,
    backing: { filename: 'middle.raw', format: 'raw' },
  });
  await using graph = new Graph();
  await graph.add({ 'node-name': 'base', ...file('base.raw') });
  await graph.add({ 'node-name': 'middle', ...file('middle.raw') });
  await graph.add(
    { 'node-name': 'top', ...image('top.qcow2'), backing: 'middle' },
    { writable: true },
  );
  const guest = await graph.addExport({ name: 'guest', node: 'top', writable: true });
  await guest.zero(4 * G, G);
  await guest.discard(5 * G, G);
  const whole = new Uint8Array(SIZE);
  await guest.read(0, whole);
  expect(whole).toEqual(new Uint8Array(SIZE));
  const [before] = await guest.extents(0, SIZE);
  expect([...before].some(({ flags }) => (flags & 1) !== 0 && flags !== 1)).toBe(false);
  await graph.replaceChild({
    ...{ parent: 'top', child: 'backing', expected: 'middle', replacement: 'base' },
    unsafe: true,
  });
  await guest.read(0, whole);
  const expected = pattern(SIZE);
  expected.fill(0, 4 * G, 6 * G);
  expect(whole).toEqual(expected);
  const [after] = await guest.extents(0, SIZE);
  expect([...after].map(({ offset, length, flags }) => [offset / G, length / G, flags])).toEqual([
    [0, 4, 1],
    [4, 2, 6],
    [6, 2, 1],
  ]);
});

test('the chain that an image tells of is the one that it has now', async () => {
  for (const name of ['a.raw', 'b.raw']) await createRawFile(name, SIZE);
  await createQcow2('top.qcow2', { size: SIZE, backing: { filename: 'a.raw', format: 'raw' } });
  await using graph = new Graph();
  await graph.add({ 'node-name': 'b', ...file('b.raw') });
  await graph.add({ 'node-name': 'top', ...image('top.qcow2') });
  const reader = await graph.addExport({ name: 'reader', node: 'top' });
  const chain = () => reader.edge.details?.chain.map(({ name }) => name.replace(/.*\//, ''));
  expect(chain()).toEqual(['a.raw']);
  await graph.replaceChild({
    ...{ parent: 'top', child: 'backing', expected: 'top.backing', replacement: 'b' },
    unsafe: true,
  });
  expect(chain()).toEqual(['b.raw']);
  // Nobody else used the old one.
  expect(graph.nodes.map(({ name }) => name)).not.toContain('top.backing');
});

test('a filter comes between an image and its backing', async () => {
  await createRawFile('base.raw', SIZE);
  await write('base.raw', pattern(SIZE));
  await createQcow2('top.qcow2', { size: SIZE, backing: { filename: 'base.raw', format: 'raw' } });
  await using graph = new Graph();
  await graph.add({ 'node-name': 'top', ...image('top.qcow2') }, { writable: true });
  const guest = await graph.addExport({ name: 'guest', node: 'top', writable: true });
  await guest.write(G, new Uint8Array(G));
  for (const above of ['top.backing', 'top.file']) {
    await graph.insertFilter({ filter: { driver: 'throttle', 'requests-per-second': 1e9 }, above });
  }
  await guest.write(2 * G, new Uint8Array(G));
  const bytes = new Uint8Array(SIZE);
  await guest.read(0, bytes);
  const expected = pattern(SIZE);
  expected.fill(0, G, 3 * G);
  expect(bytes).toEqual(expected);
});

test('an image keeps the bitmaps of its node, with what was written until it was closed', async () => {
  await createQcow2('disk.qcow2', { size: SIZE });
  const graph = new Graph();
  await graph.add({ 'node-name': 'disk', ...image('disk.qcow2') }, { writable: true });
  const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  await guest.write(0, pattern(10));
  await graph.changeBitmaps({
    disk: [
      { type: 'add', name: 'kept', persistent: true },
      { type: 'add', name: 'lost' },
    ],
  });
  await guest.write(2 * G, pattern(10));
  await graph.storeBitmaps('disk');
  await guest.write(4 * G, pattern(10));
  await graph.close();
  await using bitmaps = await openBitmaps('disk.qcow2');
  expect(bitmaps.bitmaps.list().map(({ name, recording }) => [name, recording])).toEqual([
    ['kept', true],
  ]);
  const kept = await bitmaps.bitmaps.load('kept');
  expect([...kept.ranges()].map(({ offset }) => offset / G)).toEqual([2, 4]);
});

test('a stored bitmap that records again has all that is written, and is marked before that', async () => {
  await createQcow2('disk.qcow2', { size: SIZE });
  {
    await using made = await openBitmaps('disk.qcow2', { writable: true });
    made.bitmaps.add({ name: 'kept', persistent: true });
    await made.store();
  }
  const graph = new Graph();
  await graph.add({ 'node-name': 'disk', ...image('disk.qcow2') }, { writable: true });
  const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  await guest.write(G, pattern(10));
  {
    await using seen = await openBitmaps('disk.qcow2', { forceShare: true });
    expect(seen.bitmaps.list()).toMatchObject([{ name: 'kept', inconsistent: true }]);
  }
  await graph.close();
  await using after = await openBitmaps('disk.qcow2');
  const kept = await after.bitmaps.load('kept');
  expect([...kept.ranges()]).toEqual([{ offset: G, length: G }]);
});

test('a replaced backing makes stored bitmaps of the image all dirty', async () => {
  for (const name of ['a.raw', 'b.raw']) await createRawFile(name, SIZE);
  await createQcow2('top.qcow2', { size: SIZE, backing: { filename: 'a.raw', format: 'raw' } });
  {
    await using made = await openBitmaps('top.qcow2', { writable: true });
    made.bitmaps.add({ name: 'records', persistent: true });
    made.bitmaps.add({ name: 'rests', persistent: true, disabled: true });
    await made.store();
  }
  const graph = new Graph();
  await graph.add({ 'node-name': 'b', ...file('b.raw') });
  await graph.add({ 'node-name': 'top', ...image('top.qcow2') }, { writable: true });
  await graph.replaceChild({
    ...{ parent: 'top', child: 'backing', expected: 'top.backing', replacement: 'b' },
    unsafe: true,
  });
  {
    await using seen = await openBitmaps('top.qcow2', { forceShare: true });
    const broken = seen.bitmaps.list().map(({ inconsistent }) => inconsistent);
    expect(broken).toEqual([true, true]);
  }
  await graph.close();
  await using after = await openBitmaps('top.qcow2');
  expect(
    after.bitmaps.list().map(({ dirtyBytes, inconsistent }) => [dirtyBytes, inconsistent]),
  ).toEqual([
    [null, false],
    [null, false],
  ]);
  for (const name of ['records', 'rests']) {
    expect((await after.bitmaps.load(name)).dirtyBytes).toBe(SIZE);
  }
});

test('a stored bitmap of a backup is inconsistent where the process dies, has it all where the graph is closed, and what came since where the backup is good', async () => {
  await createQcow2('disk.qcow2', { size: SIZE });
  const granules = async (path: string) => {
    await using opened = await openBitmaps(path);
    const [{ inconsistent }] = opened.bitmaps.list();
    if (inconsistent) return 'inconsistent';
    const bitmap = await opened.bitmaps.load('b');
    return [0, 1, 2, 3, 4, 5, 6, 7].filter((granule) => bitmap.get(granule * G));
  };
  /** Writes a granule, begins a backup, and writes the next one. */
  const begin = async (granule: number) => {
    const graph = new Graph();
    await graph.add({ 'node-name': 'disk', ...image('disk.qcow2') }, { writable: true });
    const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    await guest.write(granule * G, pattern(10));
    const backup = await graph.openBackup({ nodes: ['disk'], bitmap: 'b', persistent: true });
    await guest.write((granule + 1) * G, pattern(10));
    return { graph, backup };
  };
  const first = await begin(0);
  await first.backup.finish(() => {});
  await first.graph.close();
  expect(await granules('disk.qcow2')).toEqual([1]);

  const second = await begin(2);
  expect(second.backup.disk('disk').mode).toBe('incremental');
  copyFileSync('disk.qcow2', 'crashed.qcow2');
  expect(await granules('crashed.qcow2')).toBe('inconsistent');
  await second.graph.storeBitmaps('disk');
  copyFileSync('disk.qcow2', 'stored.qcow2');
  expect(await granules('stored.qcow2')).toBe('inconsistent');
  await second.graph.close();
  expect(await granules('disk.qcow2')).toEqual([1, 2, 3]);

  const third = await begin(5);
  await third.backup.finish(() => {});
  await third.graph.close();
  expect(await granules('disk.qcow2')).toEqual([6]);
});
