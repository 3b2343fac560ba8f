import { copyFileSync } from 'node:fs';
import { createQcow2, createRawFile, openBitmaps } from 'lacuna';
import { Graph, type PopulateJobOptions, type Root } from 'lacuna/graph';
import { beforeEach, describe, expect, test } from 'vitest';
import { everyOrder } from '../../support/every-order.js';
import { pattern } from '../../support/fake-device.js';
import { ManualDisk, settled } from '../../support/manual-disk.js';
import { playInOrder } from '../../support/play-in-order.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const G = 4096;
const SIZE = 16 * G;
const ALL = Array.from({ length: SIZE / G }, (_, granule) => granule);

let graph: Graph;
let disk: ManualDisk;
let guest: Root;

beforeEach(async () => {
  graph = new Graph({ drainLimitMs: 2 ** 30 });
  disk = new ManualDisk(SIZE, 'disk', G);
  disk.isFree = true;
  await graph.addDevice('disk', disk.device);
  guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
});

const write = (...granules: number[]) =>
  Promise.all(granules.map((granule) => guest.write(granule * G, pattern(G))));

const add = (name: string, more: { granularity?: number; disabled?: boolean } = {}) =>
  graph.changeBitmaps({ disk: [{ type: 'add', name, granularity: G, ...more }] });

/** Dirty granules of 4 KiB. */
async function dirty(name = 'b', node = 'disk', from = graph): Promise<number[]> {
  const bitmap = await from.node(node).bitmap(name);
  return ALL.filter((granule) => bitmap.get(granule * G));
}

const populate = (options: Partial<PopulateJobOptions> = {}) =>
  graph.populate({
    from: 'allocation',
    ...(options.from !== 'everything' && { sources: [{ node: 'disk' }] }),
    targets: [{ node: 'disk', bitmap: 'b' }],
    ...options,
  });

/** A job that has asked what is allocated, and waits for the answer. */
async function asked(job: PromiseLike<unknown>): Promise<void> {
  disk.isFree = false;
  job.then(
    () => {},
    () => {},
  );
  while (!disk.held.some(({ what }) => what === 'status')) {
    for (const request of disk.held) if (request.what === 'flush') request.release();
    await settled();
  }
}

function answer(): void {
  disk.isFree = true;
  for (const request of [...disk.held]) request.release();
}

describe('a populate from what is allocated', () => {
  test('makes it dirty in bitmaps of every granularity, beside what was dirty, and in coarser ones whole granules', async () => {
    await write(1, 9);
    await add('b', { disabled: true });
    await add('coarse', { granularity: 4 * G, disabled: true });
    await add('fine', { granularity: 512, disabled: true });
    await add('old', { disabled: true });
    await graph.changeBitmaps({ disk: [{ type: 'enable', name: 'b' }] });
    await write(3);
    const targets = ['b', 'coarse', 'fine'].map((bitmap) => ({ node: 'disk', bitmap }));
    expect(await populate({ targets })).toEqual({ warnings: [] });
    expect(await dirty('b')).toEqual([1, 3, 9]);
    expect(await dirty('coarse')).toEqual([0, 1, 2, 3, 8, 9, 10, 11]);
    expect((await graph.node('disk').bitmap('fine')).dirtyBytes).toBe(3 * G);
    expect(await dirty('old')).toEqual([]);
    expect(graph.users.map(({ name }) => name)).toEqual(['guest']);
  });

  test('is of several nodes, into bitmaps of several nodes', async () => {
    const other = new ManualDisk(SIZE, 'other', G);
    other.isFree = true;
    other.allocated[5] = true;
    await graph.addDevice('other', other.device);
    await write(1);
    await add('b');
    await graph.changeBitmaps({ other: [{ type: 'add', name: 'c', granularity: G }] });
    await populate({
      sources: [{ node: 'disk' }, { node: 'other' }],
      targets: [
        { node: 'disk', bitmap: 'b' },
        { node: 'other', bitmap: 'c' },
      ],
    });
    expect(await dirty('b')).toEqual([1, 5]);
    expect(await dirty('c', 'other')).toEqual([1, 5]);
  });

  test('has what is written after the question, also in a bitmap that does not record', async () => {
    await write(1);
    await add('b', { disabled: true });
    const job = populate();
    await asked(job);
    const written = write(7);
    await settled();
    answer();
    await Promise.all([job, written]);
    expect(await dirty()).toEqual([1, 7]);
  });

  test('has what a job brings into the node after the question, which bitmaps do not record', async () => {
    await write(1);
    await add('b', { disabled: true });
    await add('recording');
    const job = populate();
    await asked(job);
    const moved = graph.node('disk').device.write(7 * G, pattern(G), { unrecorded: true });
    await settled();
    answer();
    await Promise.all([job, moved]);
    expect(await dirty()).toEqual([1, 7]);
    expect(await dirty('recording')).toEqual([]);
  });

  test('has what is written beside it, below the filter that it asks', async () => {
    const filter = { driver: 'throttle', 'node-name': 'slow', 'requests-per-second': 1e9 } as const;
    await graph.insertFilter({ filter, above: 'disk', parents: [] });
    await add('b', { disabled: true });
    const job = populate({ sources: [{ node: 'slow' }] });
    await asked(job);
    const written = write(7);
    await settled();
    answer();
    await Promise.all([job, written]);
    expect(await dirty()).toEqual([7]);
  });
});

describe('a populate that overwrites', () => {
  test('leaves only what counts, and what was recorded since it began', async () => {
    await write(1);
    await add('b');
    await write(2, 3);
    await guest.discard(2 * G, G);
    const job = populate({ operation: 'overwrite' });
    await asked(job);
    const discarded = guest.discard(9 * G, G);
    await settled();
    answer();
    await Promise.all([job, discarded]);
    expect(await dirty()).toEqual([1, 3, 9]);
    await write(4);
    expect(await dirty()).toEqual([1, 3, 4, 9]);
  });

  test('leaves what was recorded since it began on another node than it asks', async () => {
    const other = new ManualDisk(SIZE, 'other', G);
    other.isFree = true;
    await graph.addDevice('other', other.device);
    const writer = await graph.addExport({ name: 'writer', node: 'other', writable: true });
    await graph.changeBitmaps({ other: [{ type: 'add', name: 'c', granularity: G }] });
    await writer.write(3 * G, pattern(G));
    await write(1);
    const targets = [{ node: 'other', bitmap: 'c' }];
    const job = populate({ targets, operation: 'overwrite' });
    await asked(job);
    await writer.write(9 * G, pattern(G));
    answer();
    await job;
    expect(await dirty('c', 'other')).toEqual([1, 9]);
  });

  test('does not record in a bitmap that does not', async () => {
    await write(1);
    await add('b', { disabled: true });
    await populate({ operation: 'overwrite', from: 'everything' });
    expect(await dirty()).toEqual(ALL);
    await populate({ operation: 'overwrite' });
    await write(4);
    expect(await dirty()).toEqual([1]);
  });
});

describe('a populate that takes away', () => {
  test('fails where it is not known what counts, rather than make clean what does not', async () => {
    const plain = new ManualDisk(SIZE, 'plain');
    plain.isFree = true;
    await graph.addDevice('plain', plain.device);
    await add('b');
    await write(2, 3);
    for (const from of ['allocation', 'data'] as const) {
      const job = populate({ from, sources: [{ node: 'plain' }], operation: 'difference' });
      await expect(job).rejects.toThrow(
        /what counts of node 'plain' is not known: plain.populate does not tell w/,
      );
    }
    const job = populate({ operation: 'difference' });
    await asked(job);
    disk.held.find(({ what }) => what === 'status')!.fail(false);
    answer();
    await expect(job).rejects.toThrow(/status at 0 failed by the test.*, and nothing was changed/);
    expect(await dirty()).toEqual([2, 3]);
  });

  test('makes only granules clean all of which count', async () => {
    await write(0, 1, 2, 3, 5);
    await add('b', { granularity: 2 * G });
    await populate({ from: 'everything' });
    await populate({ operation: 'difference' });
    expect(await dirty()).toEqual([4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
  });

  test('leaves what was written since it began, whatever the answer', async () => {
    await write(0, 1, 2);
    await add('b');
    await populate({ from: 'everything' });
    const job = populate({ operation: 'difference' });
    await asked(job);
    const written = Promise.all([write(1), guest.discard(2 * G, G)]);
    await settled();
    answer();
    await Promise.all([job, written]);
    expect(await dirty()).toEqual(ALL.slice(1));
  });

  test('leaves what was written since it began in a bitmap that does not record', async () => {
    await write(0, 2);
    await add('b', { disabled: true });
    await populate({ from: 'everything' });
    const job = populate({ operation: 'difference' });
    await asked(job);
    const discarded = guest.discard(2 * G, G);
    await settled();
    answer();
    await Promise.all([job, discarded]);
    expect(await dirty()).toEqual(ALL.slice(1));
  });

  test('leaves the granules that extents cover only in part, however short those are', async () => {
    const fine = new ManualDisk(SIZE, 'fine', 256);
    fine.isFree = true;
    fine.allocated.fill(true, 0, 3);
    await graph.addDevice('fine', fine.device);
    await graph.changeBitmaps({ fine: [{ type: 'add', name: 'b', granularity: 512 }] });
    const targets = [{ node: 'fine', bitmap: 'b' }];
    await populate({ targets, from: 'everything' });
    await populate({ targets, sources: [{ node: 'fine' }], operation: 'difference' });
    const bitmap = await graph.node('fine').bitmap('b');
    expect([...bitmap.ranges()]).toEqual([{ offset: 512, length: SIZE - 512 }]);
  });

  test('of everything leaves what was written since it began', async () => {
    await add('b');
    await write(0, 1, 2);
    await populate({ from: 'everything', operation: 'difference' });
    expect(await dirty()).toEqual([]);
  });
});

test('a populate from a bitmap takes it as it is at the end, and from data what does not read as zero', async () => {
  await write(1, 2);
  await add('b', { disabled: true });
  await add('c');
  await write(4);
  const from = { from: 'bitmap', sources: [{ node: 'disk', bitmap: 'c' }] } as const;
  await populate(from);
  expect(await dirty()).toEqual([4]);
  await populate({ ...from, from: 'data', sources: [{ node: 'disk' }] });
  expect(await dirty()).toEqual([1, 2, 4]);
  await populate({ ...from, operation: 'difference' });
  expect(await dirty()).toEqual([1, 2]);
});

describe('while a populate runs', () => {
  test('its bitmaps are busy, all of them, and a stop leaves them as they were', async () => {
    await write(1);
    await add('b', { disabled: true });
    await add('c');
    await write(2);
    const targets = ['b', 'c'].map((bitmap) => ({ node: 'disk', bitmap }));
    const job = populate({ targets, operation: 'overwrite', from: 'data' });
    await asked(job);
    expect(graph.nodes[0].bitmaps.map(({ busy }) => busy)).toEqual([true, true]);
    const clear = (name: string) => graph.changeBitmaps({ disk: [{ type: 'clear', name }] });
    const refused = expect(clear('c')).rejects.toMatchObject({ code: 'ERR_BITMAP_BUSY' });
    await settled();
    job.stop();
    answer();
    await refused;
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    expect([await dirty('b'), await dirty('c')]).toEqual([[], [2]]);
    await graph.changeBitmaps({ disk: [{ type: 'clear', name: 'c' }] });
    expect(graph.users.map(({ name }) => name)).toEqual(['guest']);
    expect(graph.nodes[0].bitmaps.map(({ busy }) => busy)).toEqual([false, false]);
  });

  test('the disk that it asks does not grow, also where its bitmaps are those of another node', async () => {
    await createRawFile('asked.raw', SIZE);
    const asked = { driver: 'file', filename: 'asked.raw', 'node-name': 'asked' } as const;
    await graph.add(asked, { writable: true });
    await add('b');
    const job = populate({ sources: [{ node: 'asked' }] });
    job.pause();
    while (!graph.node('disk').bitmaps[0].busy) await settled();
    await expect(graph.resize('asked', 2 * SIZE)).rejects.toThrow(
      /a populate is told what is written to node 'asked'/,
    );
    job.resume();
    await job;
    await graph.resize('asked', 2 * SIZE);
  });

  test('a second one of the same bitmap is refused, and holds none of its others', async () => {
    await add('b');
    await add('c');
    const job = populate();
    await asked(job);
    const both = ['c', 'b'].map((bitmap) => ({ node: 'disk', bitmap }));
    await expect(populate({ targets: both })).rejects.toMatchObject({ code: 'ERR_BITMAP_BUSY' });
    expect(graph.nodes[0].bitmaps.map(({ busy }) => busy)).toEqual([true, false]);
    answer();
    await job;
  });

  test('a filter that comes in lies above what it asks, and the nodes stay', async () => {
    await write(1);
    await add('b');
    const job = populate();
    await asked(job);
    await expect(graph.remove('disk')).rejects.toMatchObject({ code: 'ERR_GRAPH_BUSY' });
    answer();
    await job;
    expect(await dirty()).toEqual([1]);
  });

  test('a backup job of the same disk goes on', async () => {
    await write(1, 2);
    await add('b');
    await add('own');
    const target = new ManualDisk(SIZE, 'target');
    target.isFree = true;
    await graph.addDevice('target', target.device);
    const content = disk.bytes.slice();
    const backup = graph.backup({
      disks: [{ node: 'disk', target: 'target' }],
      bitmap: 'own',
      sync: 'full',
    });
    const job = populate();
    await write(5);
    await Promise.all([backup, job]);
    expect(await dirty()).toEqual([1, 2, 5]);
    expect(target.bytes.subarray(0, 5 * G)).toEqual(content.subarray(0, 5 * G));
  });

  test('a write that cannot be recorded for want of memory fails it', async () => {
    await add('b', { disabled: true });
    const job = populate();
    await asked(job);
    graph.node('disk').log.bitmaps.loseRecording();
    answer();
    await expect(job).rejects.toMatchObject({ code: 'ERR_ARENA_FULL' });
    expect(await dirty()).toEqual([]);
  });
});

test('whatever order two writes, a question and the end come in, all that is allocated is dirty, and nothing else', async () => {
  const orders = await everyOrder(async (choose) => {
    const own = new Graph({ drainLimitMs: 2 ** 30 });
    const held = new ManualDisk(SIZE, 'disk', G);
    await own.addDevice('disk', held.device);
    const writer = await own.addExport({ name: 'guest', node: 'disk', writable: true });
    const names = ['records', 'rests'];
    await own.changeBitmaps({
      disk: names.map((name) => ({
        type: 'add',
        name,
        granularity: G,
        disabled: name === 'rests',
      })),
    });
    held.allocated[0] = true;
    const targets = names.map((bitmap) => ({ node: 'disk', bitmap }));
    let atEnd: number[] = [];
    const sources = [{ node: 'disk' }];
    const job = () =>
      own.populate({ from: 'allocation', sources, targets }).then(() => {
        atEnd = ALL.filter((granule) => held.allocated[granule]);
      });
    const writes = [4, 7].map((granule) => () => writer.write(granule * G, pattern(G)));
    await playInOrder(choose, [held], [...writes, job]);
    expect(
      (await dirty('rests', 'disk', own)).filter((granule) => ![0, 4, 7].includes(granule)),
    ).toEqual([]);
    expect(atEnd.filter((granule) => granule !== 0)).toEqual(
      (await dirty('rests', 'disk', own)).filter((granule) => granule !== 0),
    );
    expect(await dirty('records', 'disk', own)).toEqual([0, 4, 7]);
    await own.close();
  });
  expect(orders).toBeGreaterThan(20);
});

test('a stored bitmap is marked as in use before it is populated, and kept when its image is closed', async () => {
  await createQcow2('disk.qcow2', { size: SIZE });
  {
    await using made = await openBitmaps('disk.qcow2', { writable: true });
    made.bitmaps.add({ name: 'kept', persistent: true, disabled: true, granularity: G });
    await made.store();
  }
  const own = new Graph();
  const image = { driver: 'qcow2', file: { driver: 'file', filename: 'disk.qcow2' } } as const;
  await own.add({ 'node-name': 'disk', ...image }, { writable: true });
  await own.populate({ from: 'everything', targets: [{ node: 'disk', bitmap: 'kept' }] });
  copyFileSync('disk.qcow2', 'crashed.qcow2');
  await own.close();
  {
    await using seen = await openBitmaps('crashed.qcow2');
    expect(seen.bitmaps.list()).toMatchObject([{ name: 'kept', inconsistent: true }]);
  }
  await using after = await openBitmaps('disk.qcow2');
  expect((await after.bitmaps.load('kept')).dirtyBytes).toBe(SIZE);
});

describe('a populate is refused', () => {
  test('for a node of another size, an unknown bitmap, and one that is read-only', async () => {
    await add('b');
    await graph.addDevice('small', new ManualDisk(G, 'small', G).device);
    await createQcow2('disk.qcow2', { size: SIZE });
    {
      await using made = await openBitmaps('disk.qcow2', { writable: true });
      made.bitmaps.add({ name: 'kept', persistent: true, disabled: true });
      await made.store();
    }
    const file = { driver: 'file', filename: 'disk.qcow2' } as const;
    await graph.add({ 'node-name': 'image', driver: 'qcow2', file });
    const refusals: [Partial<PopulateJobOptions>, string][] = [
      [{ sources: [{ node: 'small' }] }, 'ERR_BITMAP_MISMATCH'],
      [{ sources: [{ node: 'nowhere' }] }, 'ERR_GRAPH_UNKNOWN'],
      [{ targets: [{ node: 'disk', bitmap: 'x' }] }, 'ERR_BITMAP_UNKNOWN'],
      [{ targets: [{ node: 'image', bitmap: 'kept' }] }, 'ERR_BITMAP_READONLY'],
    ];
    for (const [options, code] of refusals) {
      await expect(populate(options), code).rejects.toMatchObject({ code });
    }
    expect(graph.users.map(({ name }) => name)).toEqual(['guest']);
    expect(graph.node('disk').bitmaps).toMatchObject([{ busy: false }]);
  });

  test('as misuse', () => {
    const wrong: [object, string][] = [
      [{ from: 'nothing' }, 'from must be one of'],
      [{ operation: 'xor' }, 'operation must be one of'],
      [{ targets: [] }, 'targets must be a list'],
      [
        {
          targets: [
            { node: 'a', bitmap: 'b' },
            { node: 'a', bitmap: 'b' },
          ],
        },
        'each bitmap once',
      ],
      [{ sources: [] }, 'sources must be a list'],
      [{ from: 'everything', sources: [{ node: 'a' }] }, 'leave out sources'],
      [{ from: 'bitmap' }, 'must say which bitmap'],
      [{ sources: [{ node: 'a', bitmap: 'b' }] }, "say from: 'bitmap'"],
    ];
    for (const [options, message] of wrong) {
      expect(() => populate(options as never)).toThrow(message);
    }
  });
});
