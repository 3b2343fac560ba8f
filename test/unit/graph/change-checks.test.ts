import { createQcow2, createRawFile, openDevice } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { expect, test } from 'vitest';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { ManualDisk, settled } from '../../support/manual-disk.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const SIZE = 4 * 65_536;
const file = (filename: string) => ({ driver: 'file', filename }) as const;
const image = (filename: string) => ({ driver: 'qcow2', file: file(filename) }) as const;

test('the status of an image is that of what lies below it now, however deep that was replaced', async () => {
  for (const name of ['a.raw', 'b.raw']) await createRawFile(name, SIZE);
  {
    await using base = await openDevice('b.raw', { writable: true });
    await base.write(0, pattern(SIZE));
  }
  const backing = (filename: string, format: 'raw' | 'qcow2') => ({ filename, format });
  await createQcow2('middle.qcow2', { size: SIZE, backing: backing('a.raw', 'raw') });
  await createQcow2('top.qcow2', { size: SIZE, backing: backing('middle.qcow2', 'qcow2') });
  await using graph = new Graph();
  await graph.add({ 'node-name': 'b', ...file('b.raw') });
  await graph.add({ 'node-name': 'middle', ...image('middle.qcow2') });
  await graph.add({ 'node-name': 'top', ...image('top.qcow2'), backing: 'middle' });
  const reader = await graph.addExport({ name: 'reader', node: 'top' });
  const status = async () => [...(await reader.extents(0, SIZE))[0]].map(({ flags }) => flags);
  expect(await status()).toEqual([6]);
  const below = { parent: 'middle', child: 'backing', expected: 'middle.backing' };
  await graph.replaceChild({ ...below, replacement: 'b', unsafe: true });
  expect(await status()).toEqual([1]);
});

test('the file of an image is not replaced by another one: the image knows where its bytes lie', async () => {
  for (const name of ['a', 'b']) await createQcow2(`${name}.qcow2`, { size: SIZE });
  await using graph = new Graph();
  await graph.add({ 'node-name': 'other', ...file('b.qcow2') });
  await graph.add({ 'node-name': 'a', ...image('a.qcow2') });
  const change = { parent: 'a', child: 'file', expected: 'a.file', replacement: 'other' };
  await expect(graph.replaceChild({ ...change, unsafe: true })).rejects.toThrow(
    'only filters may come in between',
  );
});

test('one edge is not replaced twice at one moment', async () => {
  const graph = new Graph();
  for (const name of ['a', 'b', 'c']) await graph.addDevice(name, fakeDevice(SIZE));
  await graph.addExport({ name: 'guest', node: 'a' });
  const to = (replacement: string) => ({
    ...{ parent: 'guest', child: 'root', expected: 'a', replacement },
    unsafe: true,
  });
  const both = graph.replaceChild([to('b'), to('c')]);
  await expect(both).rejects.toThrow("export 'guest' is replaced twice");
});

test('a flush that does not end holds up nobody longer than the limit of a change', async () => {
  const disk = new ManualDisk(SIZE);
  const graph = new Graph({ drainLimitMs: 20 });
  await graph.addDevice('disk', disk.device);
  const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  const filter = { driver: 'throttle', 'requests-per-second': 1e9 } as const;
  await expect(graph.insertFilter({ filter, above: 'disk' })).rejects.toMatchObject({
    code: 'ERR_GRAPH_BUSY',
    message: expect.stringContaining('a flush'),
  });
  expect(guest.node.name).toBe('disk');
  const write = guest.write(0, pattern(10));
  await settled();
  expect(disk.held.map(({ what }) => what)).toEqual(['flush', 'write']);
  disk.isFree = true;
  for (const held of [...disk.held]) held.release();
  await write;
  await graph.close();
});
