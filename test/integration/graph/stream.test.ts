import { createQcow2 } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { expect, test } from 'vitest';
import { GRANULE as G, makeChain } from '../../support/layered-graph.js';
import { run, usePeers } from '../../support/peers.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

usePeers();
workInNewFolders();

const _ = undefined;
const image = (filename: string) =>
  ({ driver: 'qcow2', file: { driver: 'file', filename } }) as const;

test('a stream is refused where the base is an internal snapshot, which no name says', async () => {
  await makeChain([[1], [_], [_]]);
  await run('qemu-img', ['snapshot', '-c', 'monday', '0.qcow2']);
  await using graph = new Graph();
  await graph.add({ 'node-name': 'base', ...image('0.qcow2'), snapshot: 'monday' });
  await graph.add({ 'node-name': 'middle', ...image('1.qcow2'), backing: 'base' });
  await graph.add(
    { 'node-name': 'top', ...image('2.qcow2'), backing: 'middle' },
    { writable: true },
  );
  const job = graph.stream({ node: 'top', base: 'base' });
  await expect(job).rejects.toThrow(/open as its internal snapshot "monday"/);
  const all = await graph.stream({ node: 'top' });
  expect(all.movedBytes).toBe(G);
});

test('no snapshot is taken of a node that is open as an internal snapshot, which no name says', async () => {
  await makeChain([[1]]);
  await run('qemu-img', ['snapshot', '-c', 'monday', '0.qcow2']);
  await using graph = new Graph();
  await graph.add({ 'node-name': 'base', ...image('0.qcow2'), snapshot: 'monday' });
  const backing = { filename: '0.qcow2', format: 'qcow2' };
  await createQcow2('top.qcow2', { size: G, backing });
  const snapshot = graph.snapshot({ disks: [{ node: 'base', overlay: image('top.qcow2') }] });
  await expect(snapshot).rejects.toThrow(/'base' shows something else than .*0.qcow2 holds/);
  const made = graph.create({ image: image('new.qcow2'), over: 'base' });
  await expect(made).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
});
