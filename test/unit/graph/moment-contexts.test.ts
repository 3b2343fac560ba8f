import type { Graph, Root } from 'lacuna/graph';
import { expect, test } from 'vitest';
import { openChain } from '../../support/chain-in-graph.js';
import { GRANULE as G } from '../../support/layered-graph.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const SIZE = 8 * G;
const DEPTH = 'qemu:allocation-depth';
const DIRTY = 'qemu:dirty-bitmap:b';

/** What a context says of each granule. */
async function flags(device: Root, context: string): Promise<number[]> {
  const all: number[] = [];
  const [list] = await device.extents(0, SIZE, { contexts: [context] });
  for (const { length, flags: each } of list) {
    for (let at = 0; at < length; at += G) all.push(each);
  }
  return all;
}

async function openView(graph: Graph): Promise<Root> {
  await graph.add({ 'node-name': 'scratch', driver: 'memory', size: SIZE }, { writable: true });
  const filter = { driver: 'copy-before-write', 'node-name': 'keep', target: 'scratch' } as const;
  await graph.insertFilter({ filter, above: 'top' });
  await graph.add({ driver: 'snapshot-access', 'node-name': 'view', file: 'keep' });
  return graph.addExport({ name: 'reader', node: 'view' });
}

test('a view has the depths and the dirty bitmaps that the image had at its moment', async () => {
  const { graph, guest } = await openChain();
  await graph.changeBitmaps({
    top: [{ type: 'add', name: 'b', granularity: G, persistent: true }],
  });
  await guest.write(G, new Uint8Array(G).fill(9));
  const view = await openView(graph);
  const before = [await flags(view, DEPTH), await flags(view, DIRTY)];
  expect(before).toEqual([
    [3, 1, 1, 2, 2, 3, 0, 1],
    [0, 1, 0, 0, 0, 0, 0, 0],
  ]);
  expect(before[0]).toEqual(await flags(guest, DEPTH));
  await guest.write(0, new Uint8Array(SIZE).fill(7));
  expect(await flags(guest, DEPTH)).toEqual(Array(8).fill(1));
  expect([await flags(view, DEPTH), await flags(view, DIRTY)]).toEqual(before);
  await graph.changeBitmaps({ top: [{ type: 'remove', name: 'b' }] });
  expect(await flags(view, DIRTY)).toEqual(before[1]);
  await graph.close();
});

test('a bitmap that comes later is in no view that was there before', async () => {
  const { graph } = await openChain();
  const view = await openView(graph);
  await graph.changeBitmaps({
    top: [{ type: 'add', name: 'b', granularity: G, persistent: true }],
  });
  expect(view.capabilities.contexts).not.toContain(DIRTY);
  await graph.close();
});
