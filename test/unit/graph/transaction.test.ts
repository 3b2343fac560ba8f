import { createQcow2, createRawFile, openDevice } from 'lacuna';
import type { BitmapAction } from 'lacuna/bitmap';
import { Graph, type GraphAction, type Root } from 'lacuna/graph';
import { beforeEach, describe, expect, test } from 'vitest';
import { everyOrder } from '../../support/every-order.js';
import { pattern } from '../../support/fake-device.js';
import { ManualDisk, settled } from '../../support/manual-disk.js';
import { playInOrder } from '../../support/play-in-order.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const G = 65_536;
const SIZE = 4 * G;
const filled = (value: number, granules = 1) => new Uint8Array(granules * G).fill(value);

let graph: Graph;
const disks: Record<string, ManualDisk> = {};
const guests: Record<string, Root> = {};

/** Two disks that guests write, each with a bitmap, and two targets. */
beforeEach(async () => {
  graph = new Graph({ drainLimitMs: 2 ** 30 });
  for (const name of ['x', 'y', 'x-target', 'y-target']) {
    disks[name] = new ManualDisk(SIZE, name);
    disks[name].isFree = true;
    await graph.addDevice(name, disks[name].device);
    if (name.length > 1) continue;
    guests[name] = await graph.addExport({ name: `guest-${name}`, node: name, writable: true });
    await guests[name].write(0, filled(1, 4));
    await graph.changeBitmaps({ [name]: [{ type: 'add', name: 'b' }] });
    await guests[name].write(G, filled(1));
  }
});

async function dirty(node: string, name = 'b'): Promise<number[]> {
  const bitmap = await graph.node(node).bitmap(name);
  return [0, 1, 2, 3].filter((granule) => bitmap.get(granule * G));
}

const backup = (node: string, more: object = {}) =>
  ({ type: 'backup', disks: [{ node, target: `${node}-target` }], ...more }) as const;

const namesOf = (bitmaps: readonly { name: string; busy: boolean }[]) =>
  bitmaps.map(({ name, busy }) => (busy ? `${name} busy` : name));

/** What is to be as it was where a transaction fails. */
const state = () => JSON.stringify(graph);

/** Lets the requests of a target go on, well or not. */
function release(name: string, isGood = true): void {
  disks[name].isFree = true;
  for (const request of [...disks[name].held]) {
    if (isGood) request.release();
    else request.fail(false);
  }
}

async function held(...names: string[]): Promise<void> {
  while (names.some((name) => disks[name].held.length === 0)) await settled();
}

describe('a transaction', () => {
  test('begins jobs, changes bitmaps, takes a snapshot and replaces a child at one moment', async () => {
    await createQcow2('top.qcow2', { size: SIZE });
    await graph.changeBitmaps({ x: [{ type: 'add', name: 'c' }] });
    await graph.add(
      { 'node-name': 'slow', driver: 'delay', milliseconds: 0, file: 'x' },
      { writable: true },
    );
    const top = {
      'node-name': 'top',
      driver: 'qcow2',
      file: { driver: 'file', filename: 'top.qcow2' },
    } as const;
    const { nodes, jobs } = await graph.transaction([
      {
        type: 'replace-child',
        parent: 'guest-x',
        child: 'root',
        expected: 'x',
        replacement: 'slow',
      },
      { type: 'bitmaps', node: 'x', actions: [{ type: 'clear', name: 'b' }] },
      { type: 'snapshot', node: 'y', overlay: top, bitmaps: 'copy' },
      { type: 'populate', from: 'everything', targets: [{ node: 'x', bitmap: 'c' }] },
    ]);
    expect(nodes.map(({ name }) => name)).toEqual(['top']);
    expect([guests.x.node.name, guests.y.node.name]).toEqual(['slow', 'top']);
    await Promise.all(jobs);
    expect([await dirty('x'), await dirty('x', 'c')]).toEqual([[], [0, 1, 2, 3]]);
    await guests.y.write(0, filled(5));
    expect(await dirty('top')).toEqual([0, 1]);
    expect(disks.y.bytes[0]).toBe(1);
  });

  test('of backups is one point in time of several disks', async () => {
    const { jobs } = await graph.transaction([backup('x'), backup('y')]);
    for (const [i, name] of ['x', 'y'].entries()) await guests[name].write(i * G, filled(9));
    await Promise.all(jobs);
    for (const name of ['x', 'y']) expect(disks[`${name}-target`].bytes).toEqual(filled(1, 4));
  });

  test.each<[string, GraphAction]>([
    ['a bitmap', { type: 'bitmaps', node: 'y', actions: [{ type: 'clear', name: 'nothing' }] }],
    ['a backup', backup('nowhere')],
    ['a backup of a bitmap that is busy', backup('x', { bitmap: 'b' })],
    [
      'a snapshot',
      { type: 'snapshot', node: 'y', overlay: { driver: 'memory', size: SIZE } as never },
    ],
    ['a populate', { type: 'populate', from: 'everything', targets: [{ node: 'y', bitmap: 'z' }] }],
    [
      'an edge',
      { type: 'replace-child', parent: 'guest-y', child: 'root', expected: 'x', replacement: 'y' },
    ],
  ])('does nothing at all where one part fails: %s', async (_, wrong) => {
    const before = state();
    const parts: GraphAction[] = [
      {
        type: 'bitmaps',
        node: 'y',
        actions: [
          { type: 'add', name: 'new' },
          { type: 'clear', name: 'b' },
        ],
      },
      backup('x', { bitmap: 'b', sync: 'bitmap', bitmapMode: 'never' }),
      { type: 'populate', from: 'everything', targets: [{ node: 'y', bitmap: 'b' }] },
    ];
    for (const actions of [
      [...parts, wrong],
      [wrong, ...parts],
    ]) {
      await expect(graph.transaction(actions)).rejects.toThrow();
      expect(state()).toBe(before);
      expect([await dirty('x'), await dirty('y')]).toEqual([[1], [1]]);
      await guests.x.write(G, filled(1));
      expect(disks['x-target'].bytes).toEqual(new Uint8Array(SIZE));
    }
  });

  test('of a graph that is closed at the same time leaves no job behind', async () => {
    const begun = graph.transaction([backup('x')]);
    const closed = graph.close();
    const { jobs } = await begun;
    await closed;
    expect(jobs[0].state).not.toBe('running');
    expect(graph.toJSON()).toEqual({ nodes: [], users: [], edges: [] });
    await jobs[0].catch(() => {});
  });

  test('that is busy for too long changes nothing, and can be repeated', async () => {
    const own = new Graph({ drainLimitMs: 5 });
    const disk = new ManualDisk(SIZE);
    await own.addDevice('disk', disk.device);
    const guest = await own.addExport({ name: 'guest', node: 'disk', writable: true });
    const write = guest.write(0, filled(1));
    await settled();
    const actions: GraphAction[] = [
      { type: 'bitmaps', node: 'disk', actions: [{ type: 'add', name: 'b' }] },
      { type: 'backup', disks: [{ node: 'disk', target: { driver: 'memory', size: SIZE } }] },
    ];
    await expect(own.transaction(actions)).rejects.toMatchObject({ code: 'ERR_GRAPH_BUSY' });
    expect(own.toJSON()).toMatchObject({
      nodes: [{ name: 'disk', bitmaps: [] }],
      users: [{ name: 'guest' }],
    });
    disk.isFree = true;
    disk.held[0].release();
    await write;
    await Promise.all((await own.transaction(actions)).jobs);
    await own.close();
  });
});

test('a transaction does what several actions say of the bitmaps of one node in their order', async () => {
  const bitmaps = (...actions: BitmapAction[]) =>
    ({ type: 'bitmaps', node: 'x', actions }) as const;
  await graph.transaction([
    bitmaps({ type: 'add', name: 'new' }, { type: 'add', name: 'passing' }),
    bitmaps({ type: 'merge', target: 'new', sources: ['b'] }),
    bitmaps({ type: 'remove', name: 'b' }, { type: 'remove', name: 'passing' }),
  ]);
  expect(namesOf(graph.node('x').bitmaps)).toEqual(['new']);
  expect(await dirty('x', 'new')).toEqual([1]);
});

test('in every order, a write is in the backup or in the bitmap of a transaction, and never in both or neither', async () => {
  const orders = await everyOrder(async (choose) => {
    const own = new Graph({ drainLimitMs: 2 ** 30 });
    const disk = new ManualDisk(2 * G, 'disk');
    const target = new ManualDisk(2 * G, 'target');
    target.isFree = true;
    await own.addDevice('disk', disk.device);
    await own.addDevice('target', target.device);
    const guest = await own.addExport({ name: 'guest', node: 'disk', writable: true });
    await playInOrder(
      choose,
      [disk],
      [
        () => guest.write(0, filled(7)),
        () =>
          own
            .transaction([
              { type: 'backup', disks: [{ node: 'disk', target: 'target' }] },
              { type: 'bitmaps', node: 'disk', actions: [{ type: 'add', name: 'b' }] },
            ])
            .then(({ jobs }) => Promise.all(jobs)),
      ],
    );
    const bitmap = await own.node('disk').bitmap('b');
    expect(target.bytes[0] === 7).toBe(!bitmap.get(0));
    expect(disk.bytes[0]).toBe(7);
    await own.close();
  });
  expect(orders).toBeGreaterThan(3);
});

describe('grouped completion', () => {
  const both = (mode: object = {}) =>
    graph.transaction(
      [
        {
          type: 'bitmaps',
          node: 'x',
          actions: [
            { type: 'clear', name: 'b' },
            { type: 'add', name: 'new' },
          ],
        },
        backup('x'),
        backup('y', { bitmap: 'b', sync: 'bitmap', bitmapMode: 'on-success', ...mode }),
      ],
      { completion: 'grouped' },
    );

  test('lets all jobs end at one moment, and what was done to bitmaps stays', async () => {
    disks['x-target'].isFree = false;
    const { jobs } = await both();
    await held('x-target');
    const written = guests.x.write(2 * G, filled(3));
    await guests.y.write(2 * G, filled(3));
    for (let turn = 0; turn < 5; turn++) await settled();
    // The second has done its work, and waits.
    expect(jobs[1].state).toBe('waiting');
    expect(namesOf(graph.node('y').bitmaps)).toEqual(['b busy']);
    release('x-target');
    await Promise.all([...jobs, written]);
    expect(namesOf(graph.node('x').bitmaps)).toEqual(['b', 'new']);
    expect([await dirty('x'), await dirty('x', 'new'), await dirty('y')]).toEqual([[2], [2], [2]]);
    expect(graph.users.map(({ name }) => name)).toEqual(['guest-x', 'guest-y']);
  });

  test('lets all fail where one does, and bitmaps have what they had and what was written since', async () => {
    disks['x-target'].isFree = false;
    const { jobs } = await both();
    await held('x-target');
    await guests.y.write(2 * G, filled(3));
    for (let turn = 0; turn < 5; turn++) await settled();
    release('x-target', false);
    const results = await Promise.allSettled(jobs);
    expect(results).toMatchObject([
      { status: 'rejected', reason: { code: 'ERR_DEVICE_IO' } },
      { status: 'rejected', reason: { code: 'ERR_JOB_STOPPED' } },
    ]);
    await guests.x.write(2 * G, filled(3));
    expect(namesOf(graph.node('x').bitmaps)).toEqual(['b']);
    expect([await dirty('x'), await dirty('y')]).toEqual([
      [1, 2],
      [1, 2],
    ]);
    expect(graph.users.map(({ name }) => name)).toEqual(['guest-x', 'guest-y']);
    expect(graph.nodes).toHaveLength(4);
  });

  test('stops the others where one is stopped, also one that waits for them', async () => {
    disks['x-target'].isFree = false;
    const { jobs } = await both();
    await held('x-target');
    for (let turn = 0; turn < 5; turn++) await settled();
    jobs[1].stop();
    await settled();
    release('x-target');
    const results = await Promise.allSettled(jobs);
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect([await dirty('x'), await dirty('y')]).toEqual([[1], [1]]);
  });

  test('begins nothing more in the others where one fails', async () => {
    const size = 20 * 1024 * 1024;
    for (const name of ['large', 'large-target']) {
      disks[name] = new ManualDisk(size, name);
      disks[name].isFree = true;
      await graph.addDevice(name, disks[name].device);
    }
    disks.large.bytes.fill(1);
    for (const name of ['x-target', 'large-target']) disks[name].isFree = false;
    const actions = [backup('x'), backup('large')];
    const { jobs } = await graph.transaction(actions, { completion: 'grouped' });
    await held('x-target', 'large-target');
    release('x-target', false);
    await expect(jobs[0]).rejects.toMatchObject({ code: 'ERR_DEVICE_IO' });
    release('large-target');
    await expect(jobs[1]).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    expect(disks['large-target'].bytes.at(-1)).toBe(0);
  });

  test('is of a populate too', async () => {
    disks['x-target'].isFree = false;
    const actions: GraphAction[] = [
      backup('x'),
      { type: 'populate', from: 'everything', targets: [{ node: 'y', bitmap: 'b' }] },
    ];
    const bad = await graph.transaction(actions, { completion: 'grouped' });
    await held('x-target');
    release('x-target', false);
    expect((await Promise.allSettled(bad.jobs)).map(({ status }) => status)).toEqual([
      'rejected',
      'rejected',
    ]);
    expect(await dirty('y')).toEqual([1]);
    const good = await graph.transaction(actions, { completion: 'grouped' });
    await Promise.all(good.jobs);
    expect(await dirty('y')).toEqual([0, 1, 2, 3]);
  });
});

test('a transaction of a snapshot of an image leaves both layers openable', async () => {
  await createRawFile('disk.raw', SIZE);
  await using own = new Graph();
  await own.add({ 'node-name': 'disk', driver: 'file', filename: 'disk.raw' }, { writable: true });
  const guest = await own.addExport({ name: 'guest', node: 'disk', writable: true });
  await guest.write(0, pattern(G));
  const overlay = {
    'node-name': 'top',
    driver: 'qcow2',
    file: { driver: 'file', filename: 'top.qcow2' },
  } as const;
  await own.create({ image: overlay, over: 'disk' });
  await own.transaction([{ type: 'snapshot', node: 'disk', overlay }]);
  await guest.write(G, pattern(G));
  await own.close();
  await using device = await openDevice('top.qcow2');
  const bytes = new Uint8Array(2 * G);
  await device.read(0, bytes);
  expect(bytes.subarray(0, G)).toEqual(pattern(G));
  expect(bytes.subarray(G)).toEqual(pattern(G));
});

describe('a transaction is refused as misuse', () => {
  test.each<[unknown, object, string]>([
    [5, {}, 'actions must be a list'],
    [[{ type: 'eat' }], {}, 'actions[0] must have the type'],
    [[{ type: 'bitmaps', node: 'x', actions: 5 }], {}, "bitmaps of 'x' must be a list"],
    [[], { completion: 'some' }, 'completion must be'],
    [[], { completion: 'grouped' }, 'there is none'],
    [[{ ...backup('x'), sync: 'none' }], { completion: 'grouped' }, 'sync none ends only'],
    [
      [backup('x'), { type: 'bitmaps', node: 'x', actions: [{ type: 'disable', name: 'b' }] }],
      { completion: 'grouped' },
      'the action disable cannot be undone',
    ],
  ])('%j', async (actions, options, message) => {
    await expect(graph.transaction(actions as never, options as never)).rejects.toThrow(message);
  });
});
