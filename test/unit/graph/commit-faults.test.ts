import { createQcow2, openDevice } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { expect, test } from 'vitest';
import { GRANULE as G, granulesOf, makeChain } from '../../support/layered-graph.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const image = (filename: string) =>
  ({ driver: 'qcow2', file: { driver: 'file', filename } }) as const;

test('a commit leaves the chain as it is where another image has come to lie over it meanwhile', async () => {
  await makeChain([
    [1, 1],
    [undefined, 2],
  ]);
  const backing = { filename: '1.qcow2', format: 'qcow2' } as const;
  await createQcow2('late.qcow2', { size: 2 * G, backing });
  await using graph = new Graph();
  await graph.add({ 'node-name': 'top', ...image('1.qcow2') });
  await graph.addExport({ name: 'reader', node: 'top' });
  const job = graph.commit({ node: 'top', base: 'top.backing' });
  job.pause();
  await expect.poll(() => graph.users.length).toBe(2);
  const late = { 'node-name': 'late', ...image('late.qcow2'), backing: 'top.committed' };
  await graph.add(late);
  job.resume();
  await expect(job).rejects.toThrow(/node 'late' has come to lie over node 'top'/);
  expect(graph.nodes.map(({ name }) => name)).toContain('top');
  await using device = await openDevice('late.qcow2');
  expect(await granulesOf(device)).toEqual([1, 2]);
});
