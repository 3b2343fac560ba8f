import { createQcow2, createRawFile, openDevice } from 'lacuna';
import type { Root } from 'lacuna/graph';
import { Graph } from 'lacuna/graph';
import { beforeEach, describe, expect, test } from 'vitest';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const G = 65_536;
const SIZE = 4 * G;
const OLD = pattern(SIZE);
const slow = { 'node-name': 'slow', driver: 'throttle', 'bytes-per-second': 1e12 } as const;
const cbw = { driver: 'copy-before-write', 'node-name': 'cbw', target: 'target' } as const;
const file = (filename: string) => ({ driver: 'file', filename }) as const;

let graph: Graph;

beforeEach(async () => {
  graph = new Graph();
  const disk = fakeDevice(SIZE);
  await disk.write(0, OLD);
  await graph.addDevice('disk', disk);
  await graph.addDevice('target', fakeDevice(SIZE));
});

const exportOf = (name: string, node: string) => graph.addExport({ name, node, writable: true });

async function viewOf(filter: string): Promise<Root> {
  await graph.add({ driver: 'snapshot-access', 'node-name': 'view', file: filter });
  return graph.addExport({ name: 'reader', node: 'view' });
}

/** Compared here, as a failing comparison of so many bytes takes minutes. */
async function showsOld(view: Root): Promise<boolean> {
  const bytes = new Uint8Array(SIZE);
  await view.read(0, bytes);
  return Buffer.compare(bytes, OLD) === 0;
}

describe('a filter that keeps a disk', () => {
  test('begins when it is exported itself', async () => {
    await graph.add({ ...cbw, file: 'disk' }, { writable: true });
    const guest = await exportOf('guest', 'cbw');
    const view = await viewOf('cbw');
    await guest.write(0, new Uint8Array(G));
    expect(await showsOld(view)).toBe(true);
  });

  test('begins when it comes into use below another filter', async () => {
    const guest = await exportOf('guest', 'disk');
    await graph.add({ ...cbw, file: 'disk' }, { writable: true });
    await graph.add({ ...slow, file: 'cbw' }, { writable: true });
    const up = { parent: 'guest', child: 'root', expected: 'disk', replacement: 'slow' };
    await graph.replaceChild(up);
    const view = await viewOf('cbw');
    await guest.write(0, new Uint8Array(G));
    expect(await showsOld(view)).toBe(true);
  });

  test('lets nobody write the disk beside it when its users have gone', async () => {
    const guest = await exportOf('guest', 'disk');
    await graph.insertFilter({ filter: cbw, above: 'disk' });
    const view = await viewOf('cbw');
    await guest.close();
    await expect(exportOf('other', 'disk')).rejects.toThrow(
      "file of node 'cbw' does not let others write it",
    );
    const through = await exportOf('other', 'cbw');
    await through.write(0, new Uint8Array(G));
    expect(await showsOld(view)).toBe(true);
  });

  test('keeps its one moment when its users go and come again', async () => {
    const guest = await exportOf('guest', 'disk');
    await graph.insertFilter({ filter: cbw, above: 'disk' });
    const view = await viewOf('cbw');
    await guest.write(0, new Uint8Array(G));
    await guest.close();
    const again = await exportOf('again', 'cbw');
    await again.write(0, new Uint8Array(2 * G));
    expect(await showsOld(view)).toBe(true);
  });

  test('is not left by its writers without being removed', async () => {
    await exportOf('guest', 'disk');
    await graph.insertFilter({ filter: cbw, above: 'disk' });
    const down = { parent: 'guest', child: 'root', expected: 'cbw', replacement: 'disk' };
    await expect(graph.replaceChild(down)).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    await graph.removeFilter('cbw');
    expect(graph.toJSON().edges).toEqual([{ parent: 'guest', child: 'root', node: 'disk' }]);
  });

  test('does not have another disk below it from one moment to the next', async () => {
    for (const name of ['a.raw', 'b.raw']) await createRawFile(name, SIZE);
    {
      await using base = await openDevice('a.raw', { writable: true });
      await base.write(0, OLD);
    }
    await createQcow2('top.qcow2', { size: SIZE, backing: { filename: 'a.raw', format: 'raw' } });
    await graph.add({ 'node-name': 'b', ...file('b.raw') });
    const top = { 'node-name': 'top', driver: 'qcow2', file: file('top.qcow2') } as const;
    await graph.add(top, { writable: true });
    await exportOf('guest', 'top');
    await graph.insertFilter({ filter: cbw, above: 'top' });
    const view = await viewOf('cbw');
    const other = { parent: 'top', child: 'backing', expected: 'top.backing', replacement: 'b' };
    await expect(graph.replaceChild({ ...other, unsafe: true })).rejects.toThrow(
      "node 'cbw' keeps what the disk below it was",
    );
    expect(await showsOld(view)).toBe(true);
    await graph.close();
  });
});

test('a view stays with the filter that keeps what it shows', async () => {
  const guest = await exportOf('guest', 'disk');
  await graph.insertFilter({ filter: cbw, above: 'disk' });
  const view = await viewOf('cbw');
  const away = { parent: 'view', child: 'file', expected: 'cbw', replacement: 'disk' };
  await expect(graph.replaceChild(away)).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
  await graph.insertFilter({ filter: slow, above: 'cbw' });
  const edges = graph.toJSON().edges.map(({ parent, node }) => `${parent} > ${node}`);
  expect(edges).toContain('view > cbw');
  expect(edges).toContain('guest > slow');
  await expect(graph.removeFilter('cbw')).rejects.toThrow("node 'view' shows what 'cbw' keeps");
  await guest.write(0, new Uint8Array(G));
  expect(await showsOld(view)).toBe(true);
});

test('a filter whose old content is shown can be backed up, and goes on being shown', async () => {
  const guest = await exportOf('guest', 'disk');
  await graph.insertFilter({ filter: cbw, above: 'disk' });
  const view = await viewOf('cbw');
  await guest.write(0, new Uint8Array(G));
  const backup = await graph.openBackup({ nodes: ['cbw'] });
  await guest.write(G, new Uint8Array(G));
  const bytes = new Uint8Array(SIZE);
  await backup.disks[0].device.read(0, bytes);
  const expected = OLD.slice();
  expected.fill(0, 0, G);
  expect(Buffer.compare(bytes, expected)).toBe(0);
  await backup.finish(() => {});
  expect(await showsOld(view)).toBe(true);
});

test('a disk that nobody uses can be backed up', async () => {
  const backup = await graph.openBackup({ nodes: ['disk'] });
  const bytes = Buffer.alloc(SIZE);
  for await (const { offset, data } of backup.disks[0].extents()) bytes.set(data!, offset);
  expect(Buffer.compare(bytes, OLD)).toBe(0);
  await backup.finish(() => {});
});
