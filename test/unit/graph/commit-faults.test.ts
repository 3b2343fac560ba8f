import { createQcow2, openBitmaps, openDevice } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { describe, expect, test } from 'vitest';
import { LacunaError } from '#dist/errors/index.js';
import { image } from '../../support/chain-in-graph.js';
import { pattern } from '../../support/fake-device.js';
import { GRANULE as G, granulesOf, layeredGraph, makeChain } from '../../support/layered-graph.js';
import { type HeldRequest, letFlush } from '../../support/manual-disk.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const filled = (value: number) => new Uint8Array(G).fill(value);
const lost = () => new LacunaError('ERR_NBD_DISCONNECTED', 'gone');

/** An image that holds some granules, and that nobody writes any more. */
async function quietImage(granules: number, held: readonly number[]) {
  const layered = await layeredGraph(pattern(granules * G));
  for (const [i, granule] of held.entries()) await layered.guest.write(granule * G, filled(i + 1));
  await layered.guest.close();
  await layered.graph.addExport({ name: 'reader', node: 'top' });
  layered.base.isFree = false;
  return layered;
}

describe('a commit of layers that nobody writes, whose base fails,', () => {
  test('writes again what the base has forgotten with its connection', async () => {
    const { graph, base } = await quietImage(4, [0, 2]);
    const job = graph.commit({ node: 'top', base: 'base', onTargetError: 'stop' });
    await letFlush(base);
    await expect.poll(() => base.held.length).toBe(2);
    const [first, second] = base.held as [HeldRequest, HeldRequest];
    first.release();
    await new Promise(setImmediate);
    // What it has answered, and not made durable, is gone with it.
    base.bytes.fill(0xee, 0, G);
    second.reject(lost());
    await expect.poll(() => job.state).toBe('paused');
    base.isFree = true;
    job.resume();
    await job;
    expect([base.bytes[0], base.bytes[2 * G]]).toEqual([1, 2]);
    await graph.close();
  });

  test('makes durable what others have written to it before it is written here', async () => {
    const { graph, base } = await quietImage(1, [0]);
    const job = graph.commit({ node: 'top', base: 'base' });
    await expect.poll(() => base.held.map(({ what }) => what)).toEqual(['flush']);
    base.held[0].reject(lost());
    base.isFree = true;
    await expect(job).rejects.toMatchObject({ code: 'ERR_NBD_DISCONNECTED' });
    expect(graph.users.map(({ name }) => name)).toEqual(['reader']);
    await graph.close();
  });

  test('says what a flush of the base has failed with', async () => {
    const { graph, base } = await quietImage(1, [0]);
    const job = graph.commit({ node: 'top', base: 'base' });
    await letFlush(base);
    await expect.poll(() => base.held.length).toBe(1);
    base.held[0].release();
    await expect.poll(() => base.held.at(-1)?.what).toBe('flush');
    const failure = new Error('no room');
    base.held.at(-1)!.reject(failure);
    base.isFree = true;
    expect(await job.then(undefined, (error) => error)).toBe(failure);
    await graph.close();
  });

  test('waits for a human where the tail of the base cannot be zeroed, if it is told to', async () => {
    await makeChain([[1, 1, 1, 1], [2], [undefined, undefined, undefined, undefined]]);
    await using graph = new Graph();
    await graph.add({ 'node-name': 'top', ...image('2.qcow2') }, { writable: true });
    const guest = await graph.addExport({ name: 'guest', node: 'top', writable: true });
    const base = 'top.backing.backing';
    const job = graph.commit({ node: 'top.backing', base, onTargetError: 'stop' });
    job.pause();
    await expect.poll(() => graph.users.length).toBe(2);
    const { driver } = graph.node(base);
    const zero = driver.zero!.bind(driver);
    driver.zero = async () => {
      throw new Error('no room');
    };
    job.resume();
    await expect.poll(() => job.state).not.toBe('running');
    expect(job.state).toBe('paused');
    driver.zero = zero;
    job.resume();
    await job;
    expect(await granulesOf(guest)).toEqual([2, 0, 0, 0]);
  });
});

test('a commit whose base cannot be opened anew after it has grown fails, and leaves the base open for reading', async () => {
  await createQcow2('base.qcow2', { size: G });
  const backing = { filename: 'base.qcow2', format: 'qcow2' } as const;
  await createQcow2('top.qcow2', { size: 2 * G, backing });
  {
    await using device = await openDevice('top.qcow2', { writable: true });
    await device.write(G, filled(2));
  }
  await using graph = new Graph();
  await graph.add({ 'node-name': 'top', ...image('top.qcow2') });
  const reader = await graph.addExport({ name: 'reader', node: 'top' });
  const base = graph.node('top.backing');
  const openAnew = base.openAnew!;
  let openings = 0;
  base.openAnew = async (writable) => {
    openings++;
    if (openings === 2) throw new Error('no memory');
    return openAnew(writable);
  };
  const commit = () => graph.commit({ node: 'top', base: 'top.backing' });
  await expect(commit()).rejects.toThrow('no memory');
  expect([openings, base.writable, base.size]).toEqual([3, false, 2 * G]);
  expect(await granulesOf(reader)).toEqual([0, 2]);
  await commit();
  expect(await granulesOf(reader)).toEqual([0, 2]);
});

test.each(['closing it', 'opening it'])(
  'a base is no longer written after its commit, and says so to every request, where %s for reading fails',
  async (what) => {
    await makeChain([
      [1, 1],
      [undefined, 2],
    ]);
    await using graph = new Graph();
    await graph.add({ 'node-name': 'top', ...image('1.qcow2') });
    const reader = await graph.addExport({ name: 'reader', node: 'top' });
    const base = graph.node('top.backing');
    const openAnew = base.openAnew!;
    const fail = async () => {
      throw new Error('no memory');
    };
    base.openAnew = async (writable) => {
      if (!writable && what === 'opening it') await fail();
      const driver = await openAnew(writable);
      if (writable && what === 'closing it') driver.close = () => driver.flush!().then(fail);
      return driver;
    };
    await expect(graph.commit({ node: 'top', base: 'top.backing' })).rejects.toThrow('no memory');
    const message = /node 'top.backing' was closed to be opened anew, which failed: no memory/;
    await expect(granulesOf(reader)).rejects.toThrow(message);
    expect([base.writable, graph.node('top.backing.file').writable]).toEqual([false, false]);
  },
);

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

test('a commit leaves the chain as it is, and no file open, where the image over it was removed meanwhile', async () => {
  await makeChain([
    [1, 1],
    [undefined, 2],
    [undefined, undefined],
  ]);
  await using graph = new Graph();
  await graph.add({ 'node-name': 'base', ...image('0.qcow2') });
  await graph.add({ 'node-name': 'middle', ...image('1.qcow2'), backing: 'base' });
  await graph.add({ 'node-name': 'top', ...image('2.qcow2'), backing: 'middle' });
  const job = graph.commit({ node: 'middle', base: 'base' });
  job.pause();
  await expect.poll(() => graph.users.length).toBe(1);
  await graph.remove('top');
  job.resume();
  await expect(job).rejects.toThrow(/node 'top' does not lie over node 'middle' any more/);
  expect(graph.nodes.map(({ name, writable }) => [name, writable])).toEqual([
    ['base.file', false],
    ['base', false],
    ['middle.file', false],
    ['middle', false],
  ]);
  await using device = await openDevice('2.qcow2');
  expect(await granulesOf(device)).toEqual([1, 2]);
});

test('a commit says that a stored bitmap goes on in memory only, where the base keeps one of that name so', async () => {
  await makeChain([[1], [2]]);
  {
    await using file = await openBitmaps('1.qcow2', { writable: true });
    file.bitmaps.add({ name: 'daily', persistent: true });
    await file.store();
  }
  await using graph = new Graph();
  await graph.add({ 'node-name': 'base', ...image('0.qcow2') });
  await graph.changeBitmaps({ base: [{ type: 'add', name: 'daily' }] });
  await graph.add({ 'node-name': 'top', ...image('1.qcow2'), backing: 'base' });
  const { bitmaps, warnings } = await graph.commit({ node: 'top', base: 'base' });
  expect(bitmaps).toEqual(['daily']);
  expect(warnings).toEqual([
    "Bitmap 'daily' goes on in memory only: node 'base' keeps one of that name in memory",
  ]);
});
