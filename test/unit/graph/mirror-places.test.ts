import { createQcow2, createRawFile } from 'lacuna';
import { Graph, type MirrorJob, type MirrorOptions, type Root } from 'lacuna/graph';
import { beforeEach, describe, expect, test } from 'vitest';
import { pattern } from '../../support/fake-device.js';
import { ManualDisk } from '../../support/manual-disk.js';
import { filled, G, ready, SIZE } from '../../support/mirrored-disk.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

let graph: Graph;
let guest: Root;
let disks: Record<string, ManualDisk>;

beforeEach(async () => {
  graph = new Graph({ drainLimitMs: 2 ** 30 });
  disks = {};
  for (const name of ['disk', 'first', 'second']) {
    const disk = new ManualDisk(SIZE, name);
    disk.isFree = true;
    disks[name] = disk;
    await graph.addDevice(name, disk.device);
  }
  guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  await guest.write(0, pattern(SIZE));
});

const run = (options: Partial<MirrorOptions> = {}): MirrorJob =>
  graph.mirror({ node: 'disk', target: 'first', ...options });

const equal = (one: string, other: string) =>
  expect(Buffer.compare(disks[one].bytes, disks[other].bytes)).toBe(0);

/** Granules of a bitmap that are dirty. */
async function dirty(node: string, name: string): Promise<number[]> {
  const bitmap = await graph.node(node).bitmap(name);
  return [0, 1, 2, 3, 4, 5, 6, 7].filter((granule) => bitmap.get(granule * G));
}

describe('a mirror whose target is mirrored too', () => {
  test('and has moved leads its users to the place where it is now', async () => {
    const job = run();
    await ready(job);
    const next = run({ node: 'first', target: 'second' });
    await ready(next);
    await next.complete();
    await guest.write(G, filled(1));
    await job.complete();
    equal('second', 'disk');
    const bytes = new Uint8Array(G);
    await guest.read(G, bytes);
    expect(bytes).toEqual(filled(1));
    expect(graph.edges).toEqual([{ parent: 'guest', child: 'root', node: 'second' }]);
  });

  test('leads its users through the filter of the other job', async () => {
    const job = run();
    await ready(job);
    const next = run({ node: 'first', target: 'second' });
    await ready(next);
    await job.complete();
    await guest.write(G, filled(1));
    await next.complete();
    equal('second', 'first');
    expect(graph.edges).toEqual([{ parent: 'guest', child: 'root', node: 'second' }]);
  });
});

test('the bitmaps of the disk that a mirror shows go along, although that is another node by then', async () => {
  await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b', granularity: G }] });
  const outer = run();
  await ready(outer);
  const inner = run({ target: 'second' });
  await ready(inner);
  await inner.complete();
  await guest.write(2 * G, filled(1));
  const { bitmaps } = await outer.complete();
  equal('first', 'second');
  expect(bitmaps).toEqual(['b']);
  expect(await dirty('first', 'b')).toEqual([2]);
});

test('a populate goes on with its own node, and not with what a mirror puts in its place', async () => {
  await graph.changeBitmaps({ second: [{ type: 'add', name: 'b', granularity: G }] });
  const populate = graph.populate({
    from: 'allocation',
    sources: [{ node: 'disk' }],
    targets: [{ node: 'second', bitmap: 'b' }],
  });
  populate.pause();
  const job = run();
  await ready(job);
  await job.complete();
  expect(graph.edges.filter(({ node }) => node === 'disk')).toHaveLength(1);
  populate.resume();
  await populate;
});

describe('what could not be read', () => {
  async function unread(): Promise<MirrorJob> {
    await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b', granularity: G }] });
    const { disk } = disks;
    disk.onFlush = () => {};
    const job = run({ onSourceError: 'ignore' });
    const release = setInterval(() => {
      for (const request of [...disk.held]) {
        const isBad = request.what === 'read' && request.offset <= 3 * G;
        const hasBad = isBad && request.offset + request.length > 3 * G;
        if (hasBad) request.fail(false);
        else request.release();
      }
    }, 1);
    disk.isFree = false;
    await ready(job);
    const ending = job.complete();
    const report = await ending.finally(() => clearInterval(release));
    disk.isFree = true;
    expect(report.unreadBytes).toBe(4096);
    return job;
  }

  test('is dirty in the bitmaps that go along, since it reads as zero from then on', async () => {
    await unread();
    expect(await dirty('first', 'b')).toEqual([3]);
  });
});

test('the file of an image is not mirrored, as it grows', async () => {
  await createQcow2('disk.qcow2', { size: SIZE });
  await createRawFile('raw.img', 4 * SIZE);
  const file = { 'node-name': 'file', driver: 'file', filename: 'disk.qcow2' } as const;
  await graph.add({ 'node-name': 'image', driver: 'qcow2', file }, { writable: true });
  const image = await graph.addExport({ name: 'image-guest', node: 'image', writable: true });
  const job = run({ node: 'file', target: { driver: 'file', filename: 'raw.img' } });
  await expect(job).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
  await image.write(0, pattern(SIZE));
});

test.each([
  ['node', 5],
  ['target', 5],
  ['bitmap', 5],
  ['writeTimeout', '5'],
  ['targetIsZero', 1],
])('a mirror with %s %j is a misuse', (key, value) => {
  expect(() => run({ [key]: value })).toThrow(TypeError);
});

test.each([
  ['always', [0, 1, 2, 3]],
  ['when-ready', [1]],
] as const)(
  'a bitmap that the target of a mirror has already notes, with targetRecords %s, what is written there',
  async (targetRecords, expected) => {
    await graph.changeBitmaps({ first: [{ type: 'add', name: 'own', granularity: G }] });
    const job = run({ targetRecords });
    await ready(job);
    await guest.write(G, filled(2));
    await job.complete();
    const bitmap = await graph.node('first').bitmap('own');
    expect([0, 1, 2, 3].filter((granule) => bitmap.get(granule * G))).toEqual(expected);
    expect(Buffer.compare(disks.first.bytes, disks.disk.bytes)).toBe(0);
    await graph.close();
  },
);
