import { Graph, type GraphAction, MirrorJob, type TransactionJob } from 'lacuna/graph';
import { describe, expect, test } from 'vitest';
import { type Chain, openChain, shown } from '../../support/chain-in-graph.js';
import { everyOrder } from '../../support/every-order.js';
import { GRANULE as G, granulesOf } from '../../support/layered-graph.js';
import { ManualDisk } from '../../support/manual-disk.js';
import { playInOrder } from '../../support/play-in-order.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const filled = (value: number) => new Uint8Array(G).fill(value);

/** What the chain of `openChain` shows. */
const SHOWN = [1, 2, 3, 2, 0, 1, 0, 0];
const SIZE = SHOWN.length * G;

const STREAM = { type: 'stream', node: 'top.backing' } as const;
const COMMIT = { type: 'commit', node: 'top.backing', base: 'top.backing.backing' } as const;
const MIRROR = { type: 'mirror', node: 'top', target: { driver: 'memory', size: SIZE } } as const;

const ADD = { type: 'add', name: 'b', granularity: G } as const;

function mirrorOf(jobs: readonly TransactionJob[]): MirrorJob {
  const found = jobs.find((job) => job instanceof MirrorJob);
  if (found === undefined) throw new Error('no mirror');
  return found;
}

describe('a transaction', () => {
  test.each([
    [STREAM, undefined],
    [COMMIT, '0.qcow2'],
  ] as const)(
    'begins a mirror beside a job that moves layers, with a bitmap, at one moment: %j',
    async (mover, backing) => {
      const { graph, guest } = await openChain();
      const { jobs } = await graph.transaction([
        { type: 'bitmaps', node: 'top', actions: [ADD] },
        MIRROR,
        mover,
      ]);
      await guest.write(0, filled(7));
      await jobs[1];
      const mirror = mirrorOf(jobs);
      await mirror.complete();
      const expected = [7, ...SHOWN.slice(1)];
      expect(await granulesOf(guest)).toEqual(expected);
      const bitmap = await graph.node('top.target').bitmap('b');
      expect([...bitmap.ranges()]).toEqual([{ offset: 0, length: G }]);
      await graph.close();
      expect((await shown('2.qcow2')).granules).toEqual(expected);
      expect((await shown(mover === STREAM ? '1.qcow2' : '2.qcow2')).backing).toBe(backing);
    },
  );

  test.each<[string, GraphAction]>([
    ['mirror', MIRROR],
    ['stream', STREAM],
    ['stream of what is written', { type: 'stream', node: 'top' }],
    ['commit', COMMIT],
    ['commit of what is written', { type: 'commit', node: 'top', base: 'top.backing.backing' }],
  ])('in which another part fails leaves nothing of a %s', async (_, action) => {
    const { graph, guest } = await openChain();
    const before = JSON.stringify(graph);
    const wrong = { type: 'clear', name: 'nothing' } as const;
    const begun = graph.transaction([action, { type: 'bitmaps', node: 'top', actions: [wrong] }]);
    await expect(begun).rejects.toMatchObject({ code: 'ERR_BITMAP_UNKNOWN' });
    expect(JSON.stringify(graph)).toBe(before);
    // Nor is anything held by a job that never was.
    const { jobs } = await graph.transaction([action]);
    const [job] = jobs;
    await ('complete' in job && action !== COMMIT ? job.complete() : job);
    expect(await granulesOf(guest)).toEqual(SHOWN);
    await graph.close();
  });

  test('refuses jobs that are in the way of each other', async () => {
    const { graph } = await openChain();
    const before = JSON.stringify(graph);
    for (const pair of [
      [STREAM, COMMIT],
      [COMMIT, STREAM],
      [MIRROR, MIRROR],
    ] as const) {
      await expect(graph.transaction(pair)).rejects.toThrow();
      expect(JSON.stringify(graph)).toBe(before);
    }
    await graph.close();
  });
});

test('in every order, a write is both in the target of a mirror and in the bitmap that began with it, or in neither', async () => {
  const found = new Set<boolean>();
  const orders = await everyOrder(async (choose) => {
    const graph = new Graph({ drainLimitMs: 2 ** 30 });
    const [disk, target] = ['disk', 'target'].map((name) => new ManualDisk(2 * G, name));
    target.isFree = true;
    await graph.addDevice('disk', disk.device);
    await graph.addDevice('target', target.device);
    const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    let job: MirrorJob | undefined;
    await playInOrder(
      choose,
      [disk],
      [
        () => guest.write(0, filled(7)),
        async () => {
          const { jobs } = await graph.transaction([
            { type: 'mirror', node: 'disk', target: 'target', sync: 'none' },
            { type: 'bitmaps', node: 'disk', actions: [ADD] },
          ]);
          job = mirrorOf(jobs);
          // Its rounds come when a timer says so, which is no order of the test's.
          job.pause();
        },
      ],
    );
    disk.isFree = true;
    job!.resume();
    await job!.complete();
    const bitmap = await graph.node('target').bitmap('b');
    expect(target.bytes[0] === 7).toBe(bitmap.get(0));
    found.add(bitmap.get(0));
    await graph.close();
  });
  expect(orders).toBeGreaterThan(2);
  expect(found.size).toBe(2);
});

test.each<[string, GraphAction]>([
  [
    'backup',
    { type: 'backup', disks: [{ node: 'top', target: { driver: 'memory', size: SIZE } }] },
  ],
  ['mirror', MIRROR],
  ['stream', { type: 'stream', node: 'top' }],
  ['commit', { type: 'commit', node: 'top', base: 'top.backing' }],
  ['populate', { type: 'populate', from: 'everything', targets: [{ node: 'top', bitmap: 'b' }] }],
])(
  'a %s whose signal fires while its transaction waits for writes leaves nothing',
  async (_, action) => {
    const { graph, guest } = await openChain();
    await graph.changeBitmaps({ top: [ADD] });
    const before = JSON.stringify(graph.edges);
    const control = new AbortController();
    const { release } = await heldWrite(graph, guest);
    const begun = graph.transaction([{ ...action, signal: control.signal } as GraphAction]);
    await expect.poll(() => graph.users.length).toBe(2);
    control.abort();
    release();
    const { jobs } = await begun;
    await expect(jobs[0]).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(JSON.stringify(graph.edges)).toBe(before);
    expect(graph.node('top').bitmaps).toMatchObject([{ busy: false }]);
    await graph.close();
  },
);

/** A write that does not end until it is told to. */
async function heldWrite(graph: Graph, guest: Chain['guest']): Promise<{ release: () => void }> {
  const { driver } = graph.node('top');
  const write = driver.write!.bind(driver);
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  driver.write = async (...request) => {
    await held;
    await write(...request);
  };
  void guest.write(0, filled(8));
  return { release };
}

/** An export that lets nobody else read the disk. */
async function alone(): Promise<Chain> {
  const { graph, guest } = await openChain();
  await guest.close();
  const own = await graph.addExport({ name: 'own', node: 'top', writable: true, shares: [] });
  return { graph, guest: own };
}

test.each<[string, (chain: Chain) => Promise<unknown>]>([
  ['mirror', async ({ graph }) => graph.mirror(MIRROR_OPTIONS)],
  ['stream', async ({ graph }) => graph.stream({ node: 'top' })],
  ['commit', async ({ graph }) => graph.commit({ node: 'top', base: 'top.backing' })],
])(
  'a %s of a disk that its user shares with nobody is refused, and leaves nothing',
  async (_, run) => {
    const chain = await alone();
    const before = JSON.stringify(chain.graph);
    await expect(run(chain)).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    expect(JSON.stringify(chain.graph)).toBe(before);
    await chain.guest.write(0, filled(9));
    await chain.guest.close();
    await chain.graph.close();
  },
);

const MIRROR_OPTIONS = { node: 'top', target: { driver: 'memory', size: SIZE } } as const;
