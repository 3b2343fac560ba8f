import { mkdirSync, renameSync, symlinkSync } from 'node:fs';
import { resolve } from 'node:path';
import { createQcow2, openDevice } from 'lacuna';
import { Graph, type StreamJobOptions } from 'lacuna/graph';
import { describe, expect, test } from 'vitest';
import { Context } from '#dist/extent/index.js';
import { Arena } from '#dist/wasm/index.js';
import { type Chain, image, LAYERS, openChain, shown } from '../../support/chain-in-graph.js';
import { everyOrder } from '../../support/every-order.js';
import { pattern } from '../../support/fake-device.js';
import {
  GRANULE as G,
  granulesOf,
  type Layer,
  layeredGraph,
  makeChain,
  shownBy,
} from '../../support/layered-graph.js';
import { type ManualDisk, settled } from '../../support/manual-disk.js';
import { playInOrder } from '../../support/play-in-order.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const _ = undefined;

const run = ({ graph }: Chain, options: Partial<StreamJobOptions> = {}) =>
  graph.stream({ node: 'top', ...options });

describe('a stream job', () => {
  test('brings all layers into the image, which has nothing below it then', async () => {
    const chain = await openChain();
    const report = await run(chain);
    expect(report).toEqual({
      movedBytes: 4 * G,
      zeroedBytes: G,
      dropped: ['top.backing', 'top.backing.backing'],
    });
    expect(chain.graph.nodes.map(({ name }) => name)).toEqual(['top.file', 'top']);
    expect(chain.graph.node('top').device.details?.chain).toEqual([]);
    expect(await granulesOf(chain.guest)).toEqual(shownBy(LAYERS));
    const [status] = await chain.guest.extents(6 * G, G);
    expect([...status].map(({ flags }) => flags)).toEqual([6]);
    await chain.graph.close();
    expect(await shown('2.qcow2')).toEqual({ granules: shownBy(LAYERS), backing: undefined });
  });

  test('with a base takes out the layers between', async () => {
    const chain = await openChain();
    const report = await run(chain, { base: 'top.backing.backing' });
    expect(report).toEqual({ movedBytes: 2 * G, zeroedBytes: G, dropped: ['top.backing'] });
    expect(chain.graph.edges).toContainEqual({
      parent: 'top',
      child: 'backing',
      node: 'top.backing.backing',
    });
    await chain.guest.write(6 * G, new Uint8Array(G).fill(9));
    await chain.graph.close();
    const expected = shownBy(LAYERS);
    expected[6] = 9;
    expect(await shown('2.qcow2')).toEqual({ granules: expected, backing: '0.qcow2' });
  });

  test('goes down to a bottom, and has nothing to do where that is the image itself', async () => {
    const chain = await openChain();
    const nothing = await run(chain, { base: 'top.backing' });
    expect(nothing).toEqual({ movedBytes: 0, zeroedBytes: 0, dropped: [] });
    await run(chain, { bottom: 'top.backing' });
    await chain.graph.close();
    expect(await shown('2.qcow2')).toEqual({ granules: shownBy(LAYERS), backing: '0.qcow2' });
  });

  test('keeps zeroes behind the end of a short layer, over a longer one', async () => {
    const layers = [
      [1, 1, 1, 1],
      [_, 2],
      [_, _, _, _],
    ];
    const chain = await openChain(layers);
    expect(shownBy(layers)).toEqual([1, 2, 0, 0]);
    await run(chain, { base: 'top.backing.backing' });
    expect(await granulesOf(chain.guest)).toEqual([1, 2, 0, 0]);
    await chain.graph.close();
    expect(await shown('2.qcow2')).toEqual({ granules: [1, 2, 0, 0], backing: '0.qcow2' });
  });

  test('keeps a filter that came above the base meanwhile', async () => {
    const chain = await openChain();
    const job = run(chain, { base: 'top.backing.backing' });
    job.pause();
    await expect.poll(() => chain.graph.users.length).toBe(2);
    const slow = { driver: 'throttle', 'node-name': 'slow', 'requests-per-second': 1e9 } as const;
    await chain.graph.insertFilter({ filter: slow, above: 'top.backing.backing' });
    job.resume();
    await job;
    const edges = chain.graph.edges.filter(({ parent }) => parent === 'top' || parent === 'slow');
    expect(edges).toContainEqual({ parent: 'top', child: 'backing', node: 'slow' });
    expect(edges).toContainEqual({ parent: 'slow', child: 'file', node: 'top.backing.backing' });
    expect(await granulesOf(chain.guest)).toEqual(shownBy(LAYERS));
    await chain.graph.close();
  });

  test('of a layer in the middle opens that for writing, and for reading only again', async () => {
    const chain = await openChain();
    await run(chain, { node: 'top.backing' });
    expect(chain.graph.node('top.backing').writable).toBe(false);
    expect(await granulesOf(chain.guest)).toEqual(shownBy(LAYERS));
    // Others may read it again.
    await (await openDevice('1.qcow2')).close();
    await chain.graph.close();
    expect(await shown('1.qcow2')).toEqual({
      granules: shownBy(LAYERS.slice(0, 2)),
      backing: undefined,
    });
    expect(await shown('2.qcow2')).toEqual({ granules: shownBy(LAYERS), backing: '1.qcow2' });
  });

  test('leaves bitmaps as they are, and they note what the guest writes meanwhile', async () => {
    const chain = await openChain();
    const add = { type: 'add', name: 'b', persistent: true } as const;
    await chain.graph.changeBitmaps({ top: [add] });
    const job = run(chain);
    job.pause();
    await expect.poll(() => chain.graph.users.length).toBe(2);
    await chain.guest.write(0, new Uint8Array(G).fill(9));
    job.resume();
    await job;
    const bitmap = await chain.graph.node('top').bitmap('b');
    expect([...bitmap.ranges()]).toEqual([{ offset: 0, length: G }]);
    await chain.graph.close();
  });

  test('that is stopped leaves the layers where they are', async () => {
    const chain = await openChain();
    const job = run(chain);
    job.pause();
    await expect.poll(() => chain.graph.users.length).toBe(2);
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    expect(chain.graph.users).toHaveLength(1);
    expect(chain.graph.nodes.map(({ name }) => name)).not.toContain('top.pulled');
    expect(await granulesOf(chain.guest)).toEqual(shownBy(LAYERS));
    await chain.graph.close();
    expect((await shown('2.qcow2')).backing).toBe('1.qcow2');
  });

  test('does not let a layer become another disk while it works', async () => {
    const chain = await openChain();
    const job = run(chain);
    job.pause();
    await expect.poll(() => chain.graph.users.length).toBe(2);
    await chain.graph.add({ 'node-name': 'other', driver: 'memory', size: 8 * G });
    const replaced = chain.graph.replaceChild({
      parent: 'top.backing',
      child: 'backing',
      expected: 'top.backing.backing',
      replacement: 'other',
      unsafe: true,
    });
    await expect(replaced).rejects.toThrow(/job 'top.stream' works on the layers/);
    job.resume();
    await job;
    await chain.graph.close();
  });

  test('is refused where its bottom is no layer of the node, even one with nothing below it', async () => {
    const chain = await openChain();
    await createQcow2('other.qcow2', { size: 8 * G });
    await chain.graph.add({ 'node-name': 'other', ...image('other.qcow2') });
    const message = /'other' does not lie below node 'top', whose layers are 'top' > 'top.backing'/;
    await expect(run(chain, { bottom: 'other' })).rejects.toThrow(message);
    expect(chain.graph.nodes.map(({ name }) => name)).toContain('top.backing');
    await chain.graph.close();
  });

  test('keeps others from its layers, and works beside one on the layers below those', async () => {
    const layers: Layer[] = [
      [1, 1, 1, 1, 1],
      [_, 2, _, _, _],
      [_, _, 3, _, _],
      [_, _, _, 4, _],
    ];
    const chain = await openChain(layers);
    const [low, lower, lowest] = [1, 2, 3].map((depth) => `top${'.backing'.repeat(depth)}`);
    const job = run(chain, { base: lower });
    job.pause();
    await expect.poll(() => chain.graph.users.length).toBe(2);
    for (const node of ['top', low]) {
      const other = run(chain, { node });
      await expect(other).rejects.toThrow(/job 'top.stream' works on node 'top/);
    }
    expect(await run(chain, { node: lower })).toMatchObject({ dropped: [lowest] });
    job.resume();
    await job;
    expect(await granulesOf(chain.guest)).toEqual(shownBy(layers));
    await chain.graph.close();
    expect(await shown('3.qcow2')).toEqual({ granules: shownBy(layers), backing: '1.qcow2' });
  });

  test('is refused where another one works on a layer between', async () => {
    const chain = await openChain();
    const job = run(chain, { node: 'top.backing' });
    job.pause();
    await expect.poll(() => chain.graph.users.length).toBe(2);
    await expect(run(chain)).rejects.toThrow(
      /job 'top.backing.stream' works on node 'top.backing'/,
    );
    job.resume();
    await job;
    await chain.graph.close();
  });

  test('copies nothing where its name of the base cannot stand in the image', async () => {
    const chain = await openChain();
    const base = 'top.backing.backing';
    const name = (filename: string) => ({ filename, format: 'qcow2' });
    const long = run(chain, { base, backing: name('n'.repeat(1024)) });
    await expect(long).rejects.toThrow(/a shorter name \(at most 1023 bytes\)/);
    const without = run(chain, { backing: name('0.qcow2') });
    await expect(without).rejects.toThrow(/backing would name .* nothing stays below it/);
    const none = run(chain, { base: 'top.backing', backing: name('0.qcow2') });
    await expect(none).rejects.toThrow(/backing would name .* no layer of it goes/);
    expect(() => run(chain, { base, backing: name('') })).toThrow(/filename must be a text/);
    expect(chain.graph.users).toHaveLength(1);
    await chain.graph.close();
    await using top = await openDevice('2.qcow2', { contexts: [Context.depth] });
    const [depths] = await top.extents(0, G, { contexts: [Context.depth] });
    expect([...depths].map(({ flags }) => flags)).toEqual([3]);
  });

  test('names a base by where its folder really is, as the system looks for it', async () => {
    mkdirSync('disks/vm', { recursive: true });
    symlinkSync(resolve('disks/vm'), 'vm');
    await makeChain([[1], [_]]);
    renameSync('0.qcow2', 'disks/0.qcow2');
    renameSync('1.qcow2', 'disks/1.qcow2');
    const backing = { filename: '../1.qcow2', format: 'qcow2' };
    await createQcow2('disks/vm/top.qcow2', { size: G, backing });
    const graph = new Graph();
    const folders = { 'backing-folders': [resolve('disks')] };
    await graph.add(
      { 'node-name': 'top', ...image('vm/top.qcow2'), ...folders },
      { writable: true },
    );
    await graph.stream({ node: 'top', base: 'top.backing.backing' });
    await graph.close();
    for (const folder of ['vm', 'disks/vm']) {
      await using top = await openDevice({ ...image(`${folder}/top.qcow2`), ...folders });
      expect(top.details?.backingFile).toBe('../0.qcow2');
      expect(await granulesOf(top)).toEqual([1]);
    }
  });

  test('leaves a file open for writing that was before, below an image that was not', async () => {
    await makeChain([[1], [_]]);
    await using graph = new Graph();
    const file = { driver: 'file', filename: '1.qcow2', 'node-name': 'file' } as const;
    await graph.add(file, { writable: true });
    await graph.add({ 'node-name': 'top', driver: 'qcow2', file: 'file' });
    const guest = await graph.addExport({ name: 'guest', node: 'top' });
    await graph.changeBitmaps({ file: [{ type: 'add', name: 'b' }] });
    await expect(graph.stream({ node: 'top' })).rejects.toThrow(/'file' has bitmaps/);
    await graph.changeBitmaps({ file: [{ type: 'remove', name: 'b' }] });
    await graph.stream({ node: 'top' });
    expect(await granulesOf(guest)).toEqual([1]);
    expect([graph.node('top').writable, graph.node('file').writable]).toEqual([false, true]);
  });

  test('keeps the bitmaps of an image that it opens for writing, and their memory once', async () => {
    const idle = Arena.default.usedBytes;
    const chain = await openChain();
    const low = 'top.backing';
    const bits = { type: 'merge', target: 'b', sources: [] } as const;
    await chain.graph.changeBitmaps({ [low]: [{ type: 'add', name: 'b', disabled: true }, bits] });
    await chain.graph.populate({
      from: 'allocation',
      sources: [{ node: low }],
      targets: [{ node: low, bitmap: 'b' }],
    });
    const { dirtyBytes } = await chain.graph.node(low).bitmap('b');
    await run(chain, { node: low });
    expect((await chain.graph.node(low).bitmap('b')).dirtyBytes).toBe(dirtyBytes);
    await chain.graph.close();
    expect(Arena.default.usedBytes).toBe(idle);
  });

  test('says what its options must be', async () => {
    await using graph = new Graph();
    const both = { node: 'a', base: 'b', bottom: 'c' };
    expect(() => graph.stream(both)).toThrow(/leave one of them out/);
    const odd = { node: 'a', onTargetError: 'ignore' } as never;
    expect(() => graph.stream(odd)).toThrow(/onTargetError must be report or stop/);
    await expect(graph.stream({ node: 'a' })).rejects.toMatchObject({ code: 'ERR_GRAPH_UNKNOWN' });
    expect(() => graph.stream({ node: 7 } as never)).toThrow(/node must be the name of a node/);
    await graph.add({ 'node-name': 'a', driver: 'memory', size: G });
    await graph.add({ 'node-name': 'b', driver: 'memory', size: G });
    const apart = graph.stream({ node: 'a', base: 'b' });
    await expect(apart).rejects.toThrow(/'b' does not lie below node 'a', whose layers are 'a'/);
  });
});

/** Lets all requests to a disk go on but the flush at the end of the job. */
async function untilFlush(disk: ManualDisk): Promise<void> {
  while (!disk.held.some(({ what }) => what === 'flush')) {
    for (const request of [...disk.held]) request.release();
    await settled();
  }
}

describe('a stream job beside a guest', () => {
  test('never loses a write, in whatever order reads of the base and writes of the image end', async () => {
    const old = pattern(2 * G);
    const fresh = new Uint8Array(1000).fill(7);
    const orders = await everyOrder(async (choose) => {
      const { graph, guest, base, data } = await layeredGraph(old);
      base.isFree = false;
      data.isFree = false;
      data.onFlush = () => {};
      let job: PromiseLike<unknown> = Promise.resolve();
      await playInOrder(
        choose,
        [base, data],
        [
          async () => {
            job = graph.stream({ node: 'top' });
            await job;
          },
          () => guest.write(500, fresh),
        ],
      );
      await job;
      base.bytes.fill(0xee);
      base.isFree = true;
      data.isFree = true;
      const bytes = new Uint8Array(2 * G);
      await guest.read(0, bytes);
      const expected = old.slice();
      expected.set(fresh, 500);
      expect(Buffer.compare(bytes, expected)).toBe(0);
      await graph.close();
    });
    expect(orders).toBeGreaterThan(4);
  });

  test('waits for a human where its policy says so, and goes on', async () => {
    for (const side of ['base', 'data'] as const) {
      const layered = await layeredGraph(pattern(2 * G));
      const { graph, guest } = layered;
      const disk = layered[side];
      disk.isFree = false;
      const policy = side === 'base' ? 'onSourceError' : 'onTargetError';
      const job = graph.stream({ node: 'top', [policy]: 'stop' });
      await expect.poll(() => disk.held.length).toBe(1);
      disk.held[0].fail(false);
      await expect.poll(() => job.state).toBe('paused');
      expect(job.progress().error?.message).toMatch(/failed by the test/);
      // Nothing is held meanwhile.
      disk.isFree = true;
      await guest.write(0, new Uint8Array(10).fill(3));
      job.resume();
      await job;
      const bytes = new Uint8Array(2 * G);
      await guest.read(0, bytes);
      const expected = pattern(2 * G);
      expected.fill(3, 0, 10);
      expect(Buffer.compare(bytes, expected)).toBe(0);
      await graph.close();
    }
  });

  test('goes on from where it was held up, also when its layers have gone', async () => {
    const content = pattern(2 * G);
    const { graph, guest, data } = await layeredGraph(content, {
      ...{ writable: false, drainLimitMs: 1000 },
    });
    data.isFree = false;
    const job = graph.stream({ node: 'top' });
    await untilFlush(data);
    // It waits at the gate, and is in flight when the image is to be for reading only again.
    const bytes = new Uint8Array(2 * G);
    const reading = guest.read(0, bytes);
    data.onFlush = () => {};
    data.held[0].release();
    await expect.poll(() => job.state, { timeout: 10_000 }).toBe('paused');
    expect(graph.nodes.map(({ name }) => name)).not.toContain('top.pulled');
    expect(graph.edges.filter(({ child }) => child === 'backing')).toEqual([]);
    data.isFree = true;
    for (const request of [...data.held]) request.release();
    await reading;
    expect(bytes).toEqual(content);
    job.resume();
    expect(await job).toMatchObject({ movedBytes: 2 * G });
    expect(graph.node('top').writable).toBe(false);
    await graph.close();
  });

  test('is done where the image was removed while it waited to be for reading only again', async () => {
    const { graph, guest, data } = await layeredGraph(pattern(2 * G), {
      ...{ writable: false, drainLimitMs: 500 },
    });
    data.isFree = false;
    const job = graph.stream({ node: 'top' });
    await untilFlush(data);
    const reading = guest.read(0, new Uint8Array(G));
    data.onFlush = () => {};
    data.held[0].release();
    await expect.poll(() => job.state, { timeout: 10_000 }).toBe('paused');
    data.isFree = true;
    for (const request of [...data.held]) request.release();
    await reading;
    await guest.close();
    await graph.remove('top');
    job.resume();
    expect(await job).toMatchObject({ movedBytes: 2 * G });
    await graph.close();
  });

  test('writes no header any more when the time for that is over', async () => {
    const { graph, data, file } = await layeredGraph(pattern(2 * G), { drainLimitMs: 500 });
    data.isFree = false;
    const job = graph.stream({ node: 'top' });
    await untilFlush(data);
    await expect.poll(() => job.state, { timeout: 10_000 }).toBe('paused');
    data.isFree = true;
    data.held[0].release();
    await settled();
    const named = () => Buffer.from(file.bytes).readBigUInt64BE(8) !== 0n;
    expect(named()).toBe(true);
    job.resume();
    await job;
    expect(named()).toBe(false);
    await graph.close();
  });

  test('fails where a layer cannot be read, and leaves the chain as it was', async () => {
    const { graph, guest, base } = await layeredGraph(pattern(2 * G));
    base.isFree = false;
    const job = graph.stream({ node: 'top' });
    await expect.poll(() => base.held.length).toBe(1);
    base.held[0].fail(false);
    await expect(job).rejects.toThrow('failed by the test');
    base.isFree = true;
    await settled();
    expect(graph.edges).toContainEqual({ parent: 'top', child: 'backing', node: 'base' });
    const bytes = new Uint8Array(2 * G);
    await guest.read(0, bytes);
    expect(Buffer.compare(bytes, pattern(2 * G))).toBe(0);
    await graph.close();
  });
});
