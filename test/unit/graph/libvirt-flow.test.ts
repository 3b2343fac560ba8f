/** Three layers of a disk, of which two have the bitmap of a product and one has none: what libvirt has to sort out by hand. */
import { copyFileSync } from 'node:fs';
import { createQcow2, createRawFile, openDevice } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { expect, test } from 'vitest';
import { GRANULE as G, granulesOf } from '../../support/layered-graph.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const GRANULES = 16;
const SIZE = GRANULES * G;
const image = (filename: string) =>
  ({ driver: 'qcow2', file: { driver: 'file', filename } }) as const;

async function shown(path: string): Promise<number[]> {
  await using device = await openDevice(path);
  return granulesOf(device);
}

test('a backup from the oldest point, an active commit and the next increment are exact over three layers, one without a bitmap', async () => {
  await createQcow2('base.qcow2', { size: SIZE });
  await createRawFile('full.raw', SIZE);
  const graph = new Graph();
  await graph.add({ 'node-name': 'base', ...image('base.qcow2') }, { writable: true });
  const guest = await graph.addExport({ name: 'guest', node: 'base', writable: true });
  const disk = new Array<number>(GRANULES).fill(0);
  const write = async (granule: number, value: number) => {
    await guest.write(granule * G, new Uint8Array(G).fill(value));
    disk[granule] = value;
  };
  const bitmap = (type: 'add' | 'remove', node: string, name: string) =>
    graph.changeBitmaps({
      [node]: [type === 'add' ? { type, name, granularity: G, persistent: true } : { type, name }],
    });
  const dirty = async (node: string, name: string) => {
    const bits = await graph.node(node).bitmap(name);
    return disk.flatMap((_value, granule) => (bits.get(granule * G) ? [granule] : []));
  };
  const target = (filename: string) => ({ driver: 'file', filename }) as const;

  // The oldest point: a full backup, and the bitmap that counts from it.
  await write(0, 1);
  await write(1, 1);
  await bitmap('add', 'base', 'a');
  await graph.backup({ disks: [{ node: 'base', target: target('full.raw') }] });
  await write(1, 2);
  await write(2, 2);

  // Somebody makes a layer without telling the product, and the product makes one that goes on.
  const over = async (node: string, name: string) => {
    const backing = { filename: `${node}.qcow2`, format: 'qcow2' };
    await createQcow2(`${name}.qcow2`, { size: SIZE, backing });
    const overlay = { 'node-name': name, ...image(`${name}.qcow2`) };
    await graph.snapshot({ disks: [{ node, overlay, bitmaps: 'none' }] });
  };
  await over('base', 'middle');
  await write(3, 3);
  await guest.zero(0, G);
  disk[0] = 0;
  await over('middle', 'top');
  await bitmap('add', 'top', 'a');
  await write(4, 4);

  // What was written since the oldest point, over all layers.
  await bitmap('add', 'top', 'since');
  const targets = [{ node: 'top', bitmap: 'since' }];
  const sources = ['base', 'top'].map((node) => ({ node, bitmap: 'a' }));
  await graph.populate({ from: 'bitmap', sources, targets });
  await graph.populate({ from: 'allocation', sources: [{ node: 'middle' }], targets });
  expect(await dirty('top', 'since')).toEqual([0, 1, 2, 3, 4]);
  copyFileSync('full.raw', 'first.raw');
  const increment = (node: string, filename: string) =>
    graph.backup({
      disks: [{ node, target: target(filename) }],
      sync: 'incremental',
      bitmap: 'since',
    });
  const first = await increment('top', 'first.raw');
  expect(first.movedBytes + first.zeroedBytes).toBe(5 * G);
  expect(await shown('first.raw')).toEqual(disk);
  await write(5, 5);

  // All layers go into the base while the guest writes, through the moment at which the job is ready, and the end.
  const job = graph.commit({ node: 'top', base: 'base' });
  await write(6, 6);
  await expect.poll(() => job.isReady).toBe(true);
  await write(7, 7);
  const report = await job.complete();
  expect([...report.bitmaps].sort()).toEqual(['a', 'since']);
  expect(guest.node.name).toBe('base');
  await write(8, 8);
  expect(await dirty('base', 'since')).toEqual([5, 6, 7, 8]);
  // All since the oldest point.
  expect(await dirty('base', 'a')).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);

  copyFileSync('first.raw', 'second.raw');
  const second = await increment('base', 'second.raw');
  expect(second.movedBytes + second.zeroedBytes).toBe(4 * G);
  expect(await shown('second.raw')).toEqual(disk);
  await write(9, 9);
  await graph.close();
  expect(await shown('base.qcow2')).toEqual(disk);
});
