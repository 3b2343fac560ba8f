import { createRawFile } from 'lacuna';
import {
  type CommitJob,
  Graph,
  type GraphAction,
  MirrorJob,
  type TransactionJob,
} from 'lacuna/graph';
import { describe, expect, test } from 'vitest';
import { openChain, shown } from '../../support/chain-in-graph.js';
import { GRANULE as G, granulesOf } from '../../support/layered-graph.js';
import { ManualDisk, settled } from '../../support/manual-disk.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const filled = (value: number) => new Uint8Array(G).fill(value);

/** What the chain of `openChain` shows. */
const SHOWN = [1, 2, 3, 2, 0, 1, 0, 0];
const SIZE = SHOWN.length * G;

const STREAM = { type: 'stream', node: 'top.backing' } as const;
const COMMIT = { type: 'commit', node: 'top.backing', base: 'top.backing.backing' } as const;
const MIRROR = { type: 'mirror', node: 'top', target: { driver: 'memory', size: SIZE } } as const;
const BITMAP = { type: 'bitmaps', node: 'top', actions: [{ type: 'clear', name: 'b' }] } as const;

/** A chain with a bitmap in which the second granule is dirty. */
async function openWithBitmap() {
  const chain = await openChain();
  await chain.graph.changeBitmaps({ top: [{ type: 'add', name: 'b', granularity: G }] });
  await chain.guest.write(G, filled(2));
  return chain;
}

const grouped = (graph: Graph, ...actions: GraphAction[]) =>
  graph.transaction(actions, { completion: 'grouped' });

function mirrorOf(jobs: readonly TransactionJob[]): MirrorJob {
  const found = jobs.find((job) => job instanceof MirrorJob);
  if (found === undefined) throw new Error('no mirror');
  return found;
}

/** The backing files that images name in their headers. */
const namedBy = (graph: Graph, ...nodes: string[]) =>
  nodes.map((name) => graph.node(name).device.details?.backingFile);

async function dirty(graph: Graph, node: string): Promise<number[]> {
  const bitmap = await graph.node(node).bitmap('b');
  return [...SHOWN.keys()].filter((granule) => bitmap.get(granule * G));
}

describe('grouped completion', () => {
  test.each([
    [STREAM, undefined],
    [COMMIT, '0.qcow2'],
  ] as const)(
    'lets a job that moves layers and a mirror end at one moment, with what was done to a bitmap: %j',
    async (mover, backing) => {
      const { graph, guest } = await openWithBitmap();
      const { jobs } = await grouped(graph, BITMAP, MIRROR, mover);
      const mirror = mirrorOf(jobs);
      await expect.poll(() => jobs[1].state).toBe('waiting');
      await expect.poll(() => mirror.isReady).toBe(true);
      // What is written while others are waited for is in the target all the same.
      await guest.write(0, filled(7));
      expect(namedBy(graph, 'top', 'top.backing')).toEqual(['1.qcow2', '0.qcow2']);
      expect(guest.node.name).toBe('top.mirror');
      const { completed } = await mirror.complete();
      await jobs[1];
      expect(completed).toBe(true);
      const expected = [7, ...SHOWN.slice(1)];
      expect(guest.node.name).toBe('top.target');
      expect(await granulesOf(guest)).toEqual(expected);
      expect(await dirty(graph, 'top.target')).toEqual([0]);
      await graph.close();
      expect((await shown('2.qcow2')).granules).toEqual(expected);
      expect((await shown(mover === STREAM ? '1.qcow2' : '2.qcow2')).backing).toBe(backing);
    },
  );

  test('waits for a mirror that is not told yet, and goes on keeping one up to date that is', async () => {
    const graph = new Graph();
    for (const name of ['x', 'y']) {
      await createRawFile(`${name}.raw`, SIZE);
      const file = { driver: 'file', filename: `${name}.raw` } as const;
      await graph.add({ 'node-name': name, ...file }, { writable: true });
    }
    const guest = await graph.addExport({ name: 'guest', node: 'x', writable: true });
    const target = { driver: 'memory', size: SIZE } as const;
    const { jobs } = await grouped(
      graph,
      { type: 'mirror', node: 'x', target },
      { type: 'mirror', node: 'y', target },
    );
    const [x, y] = jobs as MirrorJob[];
    const completed = x.complete();
    await expect.poll(() => x.state).toBe('waiting');
    for (let granule = 0; granule < SHOWN.length; granule++) {
      await guest.write(granule * G, filled(granule + 1));
    }
    expect(guest.node.name).toBe('x.mirror');
    await expect.poll(() => y.isReady).toBe(true);
    await y.cancel();
    await completed;
    expect(guest.node.name).toBe('x.target');
    expect(await granulesOf(guest)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    await graph.close();
  });

  test('is refused where the target of one job is the disk of another one', async () => {
    const graph = new Graph();
    for (const name of ['x', 'y', 'z']) {
      await graph.add({ driver: 'memory', 'node-name': name, size: SIZE }, { writable: true });
    }
    const mirrors: GraphAction[] = [
      { type: 'mirror', node: 'x', target: 'y' },
      { type: 'mirror', node: 'y', target: 'z' },
    ];
    await expect(grouped(graph, ...mirrors)).rejects.toThrow(
      "node 'y' is the target of one job, and the disk of another one",
    );
    expect(graph.nodes.map(({ name }) => name)).toEqual(['x', 'y', 'z']);
    await graph.close();
  });

  test.each([
    ['stream', STREAM],
    ['commit', COMMIT],
    ['commit of what is written', { ...COMMIT, node: 'top' }],
  ] as const)(
    'takes a %s back where a backup fails, and bitmaps have what they had and what was written since',
    async (_, mover) => {
      const { graph, guest } = await openWithBitmap();
      const other = new ManualDisk(G, 'other');
      const failing = new ManualDisk(G, 'failing');
      other.isFree = true;
      other.bytes.fill(1);
      await graph.addDevice('other', other.device);
      await graph.addDevice('failing', failing.device);
      const before = JSON.stringify(graph.edges);
      const { jobs } = await grouped(graph, BITMAP, mover, {
        type: 'backup',
        disks: [{ node: 'other', target: 'failing' }],
      });
      const [moving] = jobs;
      if (mover.node === 'top') {
        await expect.poll(() => moving.isReady).toBe(true);
        (moving as CommitJob).complete().catch(() => {});
      }
      await expect.poll(() => moving.state).toBe('waiting');
      await expect.poll(() => failing.held.length).toBe(1);
      await guest.write(0, filled(7));
      failing.isFree = true;
      failing.held[0].fail(false);
      const results = await Promise.allSettled(jobs);
      expect(results).toMatchObject([
        { status: 'rejected', reason: { code: 'ERR_JOB_STOPPED' } },
        { status: 'rejected', reason: { code: 'ERR_DEVICE_IO' } },
      ]);
      expect(JSON.stringify(graph.edges)).toBe(before);
      expect(await dirty(graph, 'top')).toEqual([0, 1]);
      const expected = [7, ...SHOWN.slice(1)];
      expect(await granulesOf(guest)).toEqual(expected);
      await graph.close();
      expect(await shown('2.qcow2')).toEqual({ granules: expected, backing: '1.qcow2' });
    },
  );

  test('takes all back where a mirror is stopped while it waits', async () => {
    const { graph, guest } = await openWithBitmap();
    const before = JSON.stringify(graph.edges);
    const { jobs } = await grouped(graph, BITMAP, MIRROR, STREAM);
    const mirror = mirrorOf(jobs);
    mirror.stop();
    const results = await Promise.allSettled(jobs);
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(JSON.stringify(graph.edges)).toBe(before);
    expect(await dirty(graph, 'top')).toEqual([1]);
    expect(await granulesOf(guest)).toEqual(SHOWN);
    await graph.close();
  });

  test('tells who has asked for an end that cannot be, and all go on until it can', async () => {
    const { graph, guest } = await openWithBitmap();
    const { jobs } = await grouped(graph, MIRROR, STREAM);
    const mirror = mirrorOf(jobs);
    await expect.poll(() => jobs[1].state).toBe('waiting');
    await graph.changeBitmaps({ 'top.target': [{ type: 'add', name: 'b' }] });
    await expect(mirror.complete()).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    expect([mirror.state, jobs[1].state]).toEqual(['running', 'waiting']);
    expect(namedBy(graph, 'top.backing')).toEqual(['0.qcow2']);
    await guest.write(0, filled(7));
    await graph.changeBitmaps({ 'top.target': [{ type: 'remove', name: 'b' }] });
    await mirror.complete();
    await jobs[1];
    expect(await granulesOf(guest)).toEqual([7, ...SHOWN.slice(1)]);
    await graph.close();
  });
});

const DISK = { driver: 'memory', size: SIZE } as const;
const END = {
  backup: (graph: Graph) =>
    graph.backup({ disks: [{ node: 'top', target: DISK }], autoFinalize: false }),
  mirror: (graph: Graph) => graph.mirror({ node: 'top', target: DISK, autoFinalize: false }),
  stream: (graph: Graph) => graph.stream({ node: 'top', autoFinalize: false }),
  commit: (graph: Graph) =>
    graph.commit({ node: 'top.backing', base: 'top.backing.backing', autoFinalize: false }),
  'commit of what is written': (graph: Graph) =>
    graph.commit({ node: 'top', base: 'top.backing', autoFinalize: false }),
  populate: (graph: Graph) =>
    graph.populate({
      from: 'everything',
      targets: [{ node: 'top', bitmap: 'b' }],
      autoFinalize: false,
    }),
} as const;
type Kind = keyof typeof END;
const KINDS = Object.keys(END) as Kind[];

/** Begins a job, and waits until nothing but its end is missing. */
async function untilPending(graph: Graph, kind: Kind) {
  const job = END[kind](graph);
  const isLive = kind === 'mirror' || kind === 'commit of what is written';
  let isPending = false;
  job.on('pending', () => {
    isPending = true;
  });
  if (isLive) void (job as MirrorJob).complete().catch(() => {});
  await expect.poll(() => isPending).toBe(true);
  expect(job.state).toBe('pending');
  return { job };
}

describe('a job that does not end by itself', () => {
  test.each(KINDS)(
    'is pending until it is finalized, and loses nothing meanwhile: %s',
    async (kind) => {
      const { graph, guest } = await openWithBitmap();
      const { job } = await untilPending(graph, kind);
      const during = JSON.stringify(graph.edges);
      job.pause();
      expect(job.state).toBe('pending');
      await guest.write(0, filled(7));
      for (let turn = 0; turn < 20; turn++) await settled();
      expect(job.state).toBe('pending');
      expect(JSON.stringify(graph.edges)).toBe(during);
      await job.finalize();
      expect(job.state).toBe('done');
      expect(JSON.stringify(graph.edges)).not.toBe(during);
      expect(await granulesOf(guest)).toEqual([7, ...SHOWN.slice(1)]);
      await graph.close();
    },
  );

  test.each(KINDS)(
    'leaves all as it was where it is stopped in place of that: %s',
    async (kind) => {
      const { graph, guest } = await openWithBitmap();
      const before = JSON.stringify(graph.edges);
      const { job } = await untilPending(graph, kind);
      job.stop();
      await expect(job.finalize()).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
      expect(job.state).toBe('stopped');
      expect(JSON.stringify(graph.edges)).toBe(before);
      expect(await dirty(graph, 'top')).toEqual([1]);
      expect(await granulesOf(guest)).toEqual(SHOWN);
      await graph.close();
    },
  );

  test('is pending again where it cannot end when it is finalized', async () => {
    const { graph } = await openWithBitmap();
    const { job } = await untilPending(graph, 'mirror');
    await graph.changeBitmaps({ 'top.target': [{ type: 'add', name: 'b' }] });
    await expect(job.finalize()).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    expect(job.state).toBe('pending');
    await graph.changeBitmaps({ 'top.target': [{ type: 'remove', name: 'b' }] });
    expect(await job.finalize()).toMatchObject({ completed: true });
    await graph.close();
  });

  test('ends with its group, when one of that is finalized', async () => {
    const { graph, guest } = await openWithBitmap();
    const { jobs } = await grouped(graph, MIRROR, { ...STREAM, autoFinalize: false });
    const mirror = mirrorOf(jobs);
    await expect.poll(() => jobs[1].state).toBe('waiting');
    const completed = mirror.complete();
    await expect.poll(() => [mirror.state, jobs[1].state]).toEqual(['pending', 'pending']);
    await mirror.finalize();
    await Promise.all([completed, jobs[1]]);
    expect(guest.node.name).toBe('top.target');
    await graph.close();
  });

  test('that could not begin has nothing to be finalized', async () => {
    const { graph } = await openChain();
    const job = graph.stream({ node: 'nothing', autoFinalize: false });
    await expect(job.finalize()).rejects.toMatchObject({ code: 'ERR_GRAPH_UNKNOWN' });
    await graph.close();
  });

  test('that goes on until it is stopped takes no autoFinalize', async () => {
    const { graph } = await openChain();
    const disks = [{ node: 'top', target: DISK }];
    expect(() => graph.backup({ disks, sync: 'none', autoFinalize: false })).toThrow(TypeError);
    await graph.close();
  });
});

test('a graph lists its jobs until they are dismissed, by hand or by themselves', async () => {
  const { graph } = await openChain();
  const kept = graph.stream({ node: 'top.backing', autoDismiss: false });
  expect(() => kept.dismiss()).toThrow(TypeError);
  await kept;
  const mirror = graph.mirror({ node: 'top', target: DISK });
  expect(graph.jobs).toHaveLength(2);
  mirror.stop();
  await mirror.catch(() => {});
  await expect.poll(() => graph.jobs.length).toBe(1);
  expect(graph.jobs[0].state).toBe('done');
  kept.dismiss();
  kept.dismiss();
  expect(graph.jobs).toHaveLength(0);
  await graph.close();
});
