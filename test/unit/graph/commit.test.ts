import { createRawFile, openBitmaps } from 'lacuna';
import { type CommitJobOptions, Graph } from 'lacuna/graph';
import { describe, expect, test } from 'vitest';
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
import { playInOrder } from '../../support/play-in-order.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const _ = undefined;
const filled = (value: number) => new Uint8Array(G).fill(value);
const slow = { driver: 'throttle', 'node-name': 'slow', 'requests-per-second': 1e9 } as const;

/** Puts all layers into the lowest one of three. */
const run = ({ graph }: Chain, options: Partial<CommitJobOptions> = {}) =>
  graph.commit({ node: 'top', base: 'top.backing.backing', ...options });

const becomesReady = (job: { isReady: boolean }) => expect.poll(() => job.isReady).toBe(true);

describe('a commit of layers that nobody writes', () => {
  test('puts them into the base, which the image above names then', async () => {
    const chain = await openChain([...LAYERS, [_, _, _, _, _, _, 4, _]]);
    const { graph, guest } = chain;
    await guest.write(0, filled(5));
    const job = run(chain, { node: 'top.backing', base: 'top.backing.backing.backing' });
    expect(await job).toEqual({
      completed: true,
      movedBytes: 3 * G,
      zeroedBytes: 2 * G,
      bitmaps: [],
      dropped: ['top.backing', 'top.backing.backing'],
      warnings: [],
    });
    expect(graph.edges.filter(({ child }) => child === 'backing')).toEqual([
      { parent: 'top', child: 'backing', node: 'top.backing.backing.backing' },
    ]);
    const expected = shownBy(LAYERS);
    expect((await granulesOf(guest)).slice(1)).toEqual([...expected.slice(1, 6), 4, 0]);
    // It is for reading only again, and others may read it too.
    expect(graph.node('top.backing.backing.backing').writable).toBe(false);
    expect(await shown('0.qcow2')).toEqual({ granules: expected, backing: undefined });
    await graph.close();
    const [first, ...others] = (await shown('3.qcow2')).granules;
    expect([first, ...others]).toEqual([5, ...expected.slice(1, 6), 4, 0]);
    expect((await shown('3.qcow2')).backing).toBe('0.qcow2');
  });

  test('of a top that is only read moves its readers to the base', async () => {
    const chain = await openChain(LAYERS, false);
    const report = await run(chain);
    expect(report.completed).toBe(true);
    expect(chain.guest.node.name).toBe('top.backing.backing');
    expect(await granulesOf(chain.guest)).toEqual(shownBy(LAYERS));
    await chain.graph.close();
    expect((await shown('0.qcow2')).granules).toEqual(shownBy(LAYERS));
  });

  test('keeps zero what lies behind the end of a layer that is shorter than those around it', async () => {
    const layers = [
      [1, 1, 1, 1],
      [_, 2],
      [_, _, _, _],
    ];
    const chain = await openChain(layers);
    const report = await run(chain, { node: 'top.backing', base: 'top.backing.backing' });
    expect(report.zeroedBytes).toBe(2 * G);
    expect(await granulesOf(chain.guest)).toEqual([1, 2, 0, 0]);
    await chain.graph.close();
    expect(await shown('2.qcow2')).toEqual({ granules: [1, 2, 0, 0], backing: '0.qcow2' });
  });

  test('makes a base larger that is smaller, be it an image or a raw disk', async () => {
    const chain = await openChain([
      [1, 1],
      [_, 2, 3, _],
      [_, _, _, _],
    ]);
    await run(chain, { node: 'top.backing', base: 'top.backing.backing' });
    expect(await granulesOf(chain.guest)).toEqual([1, 2, 3, 0]);
    await chain.graph.close();
    expect((await shown('2.qcow2')).granules).toEqual([1, 2, 3, 0]);

    await createRawFile('base.raw', G);
    await using graph = new Graph();
    const base = { driver: 'file', filename: 'base.raw' } as const;
    await graph.add({ 'node-name': 'top', ...image('1.qcow2'), backing: base });
    const reader = await graph.addExport({ name: 'reader', node: 'top' });
    await graph.commit({ node: 'top', base: 'top.backing' });
    expect(await granulesOf(reader)).toEqual([0, 2, 3, 0]);
    expect(graph.node('top.backing').size).toBe(4 * G);
  });

  test('is refused where others would see the layers change', async () => {
    const chain = await openChain();
    const options = { node: 'top.backing', base: 'top.backing.backing' };
    const reader = await chain.graph.addExport({ name: 'reader', node: 'top.backing.backing' });
    await expect(run(chain, options)).rejects.toThrow(/is used as .* end that use first/);
    await reader.close();
    const job = run(chain, options);
    job.pause();
    await expect.poll(() => chain.graph.users.length).toBe(2);
    for (const node of ['top.backing', 'top.backing.backing']) {
      const late = chain.graph.addExport({ name: 'late', node });
      await expect(late).rejects.toThrow(/while job 'top.backing.commit' moves it/);
    }
    // A filter shows what they show to those who use them already.
    await chain.graph.insertFilter({ filter: slow, above: 'top.backing.backing' });
    job.resume();
    await job;
    expect(chain.graph.edges).toContainEqual({ parent: 'top', child: 'backing', node: 'slow' });
    await chain.graph.addExport({ name: 'late', node: 'top.backing.backing' });
    expect(await granulesOf(chain.guest)).toEqual(shownBy(LAYERS));
    await chain.graph.close();
  });

  test('makes all of a bitmap dirty that a filter above the base records, since it has not seen the writes below it', async () => {
    const chain = await openChain();
    const base = 'top.backing.backing';
    await chain.graph.insertFilter({ filter: slow, above: base });
    await chain.graph.changeBitmaps({ slow: [{ type: 'add', name: 'b' }] });
    await run(chain, { node: 'top.backing', base });
    expect((await chain.graph.node('slow').bitmap('b')).dirtyBytes).toBe(8 * G);
    await chain.graph.close();
  });

  test('is refused where another job works on one of its layers', async () => {
    const chain = await openChain();
    const { graph } = chain;
    const job = graph.stream({ node: 'top' });
    job.pause();
    await expect.poll(() => graph.users.length).toBe(2);
    const other = run(chain, { node: 'top.backing' });
    await expect(other).rejects.toThrow(/job 'top.stream' works on node 'top.backing'/);
    job.resume();
    await job;
    await graph.close();
  });

  test('writes nothing where its name of the base cannot stand in the image above', async () => {
    const chain = await openChain();
    const backing = { filename: 'n'.repeat(1024), format: 'qcow2' };
    const job = run(chain, { node: 'top.backing', base: 'top.backing.backing', backing });
    await expect(job).rejects.toThrow(/a shorter name \(at most 1023 bytes\)/);
    await chain.graph.close();
    expect((await shown('0.qcow2')).granules).toEqual(shownBy(LAYERS.slice(0, 1)));
  });

  test('that is stopped does not close an image that another commit writes meanwhile', async () => {
    const layers: Layer[] = [...LAYERS, [_, _, _, _, _, _, 4, _], [5, _, _, _, _, _, _, _]];
    const chain = await openChain(layers);
    const below = run(chain, {
      node: 'top.backing.backing.backing',
      base: 'top.backing.backing.backing.backing',
    });
    below.pause();
    await expect.poll(() => chain.graph.users.length).toBe(2);
    const above = run(chain);
    above.pause();
    await expect.poll(() => chain.graph.users.length).toBe(3);
    below.stop();
    await expect(below).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    above.resume();
    await above.complete();
    expect(await granulesOf(chain.guest)).toEqual(shownBy(layers));
    await chain.graph.close();
  });

  test('that is stopped leaves the layers where they are', async () => {
    const chain = await openChain();
    const job = run(chain, { node: 'top.backing', base: 'top.backing.backing' });
    job.pause();
    await expect.poll(() => chain.graph.users.length).toBe(2);
    job.stop();
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    expect(
      chain.graph.nodes.every(({ writable, name }) => !writable || /^top(\.file)?$/.test(name)),
    ).toBe(true);
    expect(await granulesOf(chain.guest)).toEqual(shownBy(LAYERS));
    await run(chain, { node: 'top.backing', base: 'top.backing.backing' });
    await chain.graph.close();
    expect(await shown('2.qcow2')).toEqual({ granules: shownBy(LAYERS), backing: '0.qcow2' });
  });

  test('says what its options must be', async () => {
    await using graph = new Graph();
    expect(() => graph.commit({ node: 'a' } as never)).toThrow(/base/);
    expect(() => graph.commit({ node: 'a', base: 7 } as never)).toThrow(/base must be the name/);
    const odd = { node: 'a', base: 'b', onSourceError: 'ignore' } as never;
    expect(() => graph.commit(odd)).toThrow(/onSourceError must be report or stop/);
    await graph.add({ 'node-name': 'a', driver: 'memory', size: G });
    await expect(graph.commit({ node: 'a', base: 'a' })).rejects.toThrow(/does not lie below/);
  });
});

describe('a commit of a top that is written', () => {
  test('keeps the base up to date, and lets the guest use it when it completes', async () => {
    const chain = await openChain();
    const { graph, guest } = chain;
    const job = run(chain);
    await guest.write(G, filled(5));
    await becomesReady(job);
    expect(graph.nodes.map(({ name }) => name)).toContain('top');
    await guest.write(2 * G, filled(6));
    await guest.zero(0, G);
    const report = await job.complete();
    expect(report).toMatchObject({ completed: true, dropped: ['top', 'top.backing'] });
    expect(guest.node.name).toBe('top.backing.backing');
    expect(graph.nodes.map(({ name }) => name)).toEqual([
      'top.backing.backing.file',
      'top.backing.backing',
    ]);
    const expected = shownBy(LAYERS);
    expected.splice(0, 3, 0, 5, 6);
    expect(await granulesOf(guest)).toEqual(expected);
    await guest.write(7 * G, filled(7));
    await graph.close();
    expected[7] = 7;
    expect(await shown('0.qcow2')).toEqual({ granules: expected, backing: undefined });
  });

  test('that is cancelled when it is ready leaves the guest where it is', async () => {
    const chain = await openChain();
    const job = run(chain);
    await becomesReady(job);
    await chain.guest.write(G, filled(5));
    await job.cancel();
    expect(chain.guest.node.name).toBe('top');
    expect(chain.graph.node('top.backing.backing').writable).toBe(false);
    const expected = shownBy(LAYERS);
    expected[1] = 5;
    expect(await granulesOf(chain.guest)).toEqual(expected);
    await chain.graph.close();
    expect((await shown('2.qcow2')).granules).toEqual(expected);
    expect((await shown('0.qcow2')).granules).toEqual(expected);
  });

  test('lets a populate ask the uppermost image, which shows its disk all the time, and none of those below', async () => {
    const chain = await openChain();
    const { graph, guest } = chain;
    const add = { type: 'add', name: 'b', granularity: G } as const;
    await graph.changeBitmaps({ top: [add], 'top.backing': [add] });
    const populate = async (node: string) => {
      await graph.populate({ from: 'data', sources: [{ node }], targets: [{ node, bitmap: 'b' }] });
    };
    const job = run(chain);
    await becomesReady(job);
    await guest.write(3 * G, filled(9));
    await populate('top');
    const bits = await graph.node('top').bitmap('b');
    const dirty = LAYERS[0].flatMap((_layer, i) => (bits.get(i * G) ? [i] : []));
    expect(dirty).toEqual([0, 1, 2, 3, 5]);
    await expect(populate('top.backing')).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    await job.complete();
    await graph.close();
  });

  test('is refused where the base is larger than what the guest uses', async () => {
    const chain = await openChain([
      [1, 1, 1],
      [_, 2],
    ]);
    const job = run(chain, { base: 'top.backing' });
    await expect(job).rejects.toThrow(/a base that is larger cannot come in its place/);
    await chain.graph.close();
  });

  test('adds the dirt of the bitmaps of all layers to those of the base, without a gap', async () => {
    await makeChain(LAYERS);
    const add = async (path: string, name: string, granules: readonly number[]) => {
      await using file = await openBitmaps(path, { writable: true });
      const bits = file.bitmaps.add({ name, granularity: G, persistent: true, disabled: true });
      using copy = bits.snapshot();
      for (const granule of granules) copy.set(granule * G, G);
      file.bitmaps.merge(name, [copy]);
      file.bitmaps.enable(name);
      await file.store();
    };
    await add('0.qcow2', 'everywhere', [0]);
    await add('1.qcow2', 'middle', [5]);
    await add('2.qcow2', 'everywhere', [6]);
    await add('2.qcow2', 'top', [4]);
    const graph = new Graph();
    await graph.add({ 'node-name': 'top', ...image('2.qcow2') }, { writable: true });
    const guest = await graph.addExport({ name: 'guest', node: 'top', writable: true });
    const job = graph.commit({ node: 'top', base: 'top.backing.backing' });
    await becomesReady(job);
    await guest.write(3 * G, filled(9));
    const { bitmaps } = await job.complete();
    expect([...bitmaps].sort()).toEqual(['everywhere', 'middle', 'top']);
    await guest.write(7 * G, filled(9));
    await graph.close();
    await using image0 = await openBitmaps('0.qcow2');
    const dirty = async (name: string) => {
      const bits = await image0.bitmaps.load(name);
      return LAYERS[0].flatMap((_value, granule) => (bits.get(granule * G) ? [granule] : []));
    };
    expect(image0.bitmaps.list().map(({ recording }) => recording)).toEqual([true, true, true]);
    // That of the base has noted what was put into it: 1 to 4, and 7.
    expect(await dirty('everywhere')).toEqual([0, 1, 2, 3, 4, 6, 7]);
    // The one of the middle does not go on in the top, so it gets all that this held: 2, 3 and 7.
    expect(await dirty('middle')).toEqual([2, 3, 5, 7]);
    expect(await dirty('top')).toEqual([3, 4, 7]);
  });
});

describe('a commit beside a guest', () => {
  const fresh = new Uint8Array(1000).fill(7);

  test('leaves what the writes leave, in whatever order reads of the top and writes of both end', async () => {
    const orders = await everyOrder(async (choose) => {
      const { graph, guest, base, data } = await layeredGraph(pattern(2 * G));
      await guest.write(0, filled(5));
      data.isFree = false;
      base.isFree = false;
      data.onFlush = () => {};
      base.onFlush = () => {};
      await playInOrder(
        choose,
        [base, data],
        [
          () => graph.commit({ node: 'top', base: 'base' }).complete(),
          () => guest.write(500, fresh),
        ],
      );
      expect(guest.node.name).toBe('base');
      const expected = pattern(2 * G);
      expected.fill(5, 0, G);
      expected.set(fresh, 500);
      expect(Buffer.compare(base.bytes, expected)).toBe(0);
      base.isFree = true;
      await graph.close();
    });
    expect(orders).toBeGreaterThan(4);
  });

  test('waits for a human where its policy says so, and goes on', async () => {
    for (const side of ['data', 'base'] as const) {
      const layered = await layeredGraph(pattern(2 * G));
      const { graph, guest, base } = layered;
      await guest.write(0, filled(5));
      layered[side].isFree = false;
      layered[side].onFlush = () => {};
      const policy = side === 'data' ? 'onSourceError' : 'onTargetError';
      const job = graph.commit({ node: 'top', base: 'base', [policy]: 'stop' });
      await expect.poll(() => layered[side].held.length).toBe(1);
      layered[side].held[0].fail(false);
      await expect.poll(() => job.state).toBe('paused');
      layered[side].isFree = true;
      await guest.write(G, filled(6));
      job.resume();
      await becomesReady(job);
      await job.complete();
      expect([base.bytes[0], base.bytes[G]]).toEqual([5, 6]);
      await graph.close();
    }
  });

  test('fails where the base cannot be written, and the guest goes on with what it has', async () => {
    const { graph, guest, base } = await layeredGraph(pattern(2 * G));
    await guest.write(0, filled(5));
    base.isFree = false;
    base.onFlush = () => {};
    const job = graph.commit({ node: 'top', base: 'base' });
    await expect.poll(() => base.held.length).toBe(1);
    base.held[0].fail(false);
    await expect(job).rejects.toThrow('failed by the test');
    base.isFree = true;
    expect(guest.node.name).toBe('top');
    expect(graph.node('base').movedBy).toBeUndefined();
    await graph.commit({ node: 'top', base: 'base' }).complete();
    expect(base.bytes[0]).toBe(5);
    await graph.close();
  });

  test('names the base in the image above only when all of it is durable', async () => {
    const chain = await openChain([
      [1, 1],
      [_, 2],
      [_, _],
    ]);
    const { graph } = chain;
    const order: string[] = [];
    const watch = (node: string, what: 'flush' | 'nameBacking') => {
      const { driver } = graph.node(node);
      const before = driver[what]!.bind(driver) as () => Promise<void>;
      driver[what] = async (...given: never[]) => {
        await (before as (...all: never[]) => Promise<void>)(...given);
        order.push(`${what} ${node}`);
      };
    };
    watch('top', 'nameBacking');
    const job = run(chain, { node: 'top.backing', base: 'top.backing.backing' });
    job.pause();
    await expect.poll(() => graph.users.length).toBe(2);
    watch('top.backing.backing', 'flush');
    job.resume();
    await job;
    const named = order.indexOf('nameBacking top');
    expect(order.slice(0, named)).toContain('flush top.backing.backing');
    expect(named).toBeGreaterThan(0);
    await graph.close();
  });
});
