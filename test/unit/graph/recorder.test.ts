import { Arena, DirtyBitmaps } from 'lacuna/bitmap';
import { Graph, RecordingDevice } from 'lacuna/graph';
import { expect, test } from 'vitest';
import { NodeBitmaps } from '#dist/graph/core/node-bitmaps.js';
import { fakeDevice } from '../../support/fake-device.js';

const SIZE = 1024 * 1024;
const G = 65_536;

const FAILS = {
  write: async () => {
    throw new Error('no');
  },
};

function dirty(bitmaps: DirtyBitmaps, name: string): number[][] {
  return [...bitmaps.get(name).ranges()].map(({ offset, length }) => [offset / G, length / G]);
}

test('a recording device notes writes, zeroes and discards', async () => {
  const bitmaps = new DirtyBitmaps({ size: SIZE });
  await using disk = new RecordingDevice(fakeDevice(SIZE), bitmaps);
  bitmaps.add({ name: 'all' });
  await disk.write(1, new Uint8Array(1));
  await disk.zero(2 * G, 1);
  await disk.discard(4 * G, G);
  await disk.read(8 * G, new Uint8Array(G));
  await disk.flush();
  expect(dirty(bitmaps, 'all')).toEqual([
    [0, 1],
    [2, 1],
    [4, 1],
  ]);
});

test('a recording device notes a write that fails, since a part of it may have been made', async () => {
  const bitmaps = new DirtyBitmaps({ size: SIZE });
  await using disk = new RecordingDevice(fakeDevice(SIZE, FAILS), bitmaps);
  bitmaps.add({ name: 'all' });
  await expect(disk.write(0, new Uint8Array(1))).rejects.toThrow('no');
  expect(dirty(bitmaps, 'all')).toEqual([[0, 1]]);
});

test('a recording device makes no write that cannot be noted', async () => {
  const bitmaps = new DirtyBitmaps({ size: SIZE });
  let writes = 0;
  const device = fakeDevice(SIZE, { write: async () => void writes++ });
  await using disk = new RecordingDevice(device, bitmaps);
  bitmaps.add({ name: 'all' });
  bitmaps.setReadOnly('all', true);
  await expect(disk.write(0, new Uint8Array(1))).rejects.toMatchObject({
    code: 'ERR_BITMAP_READONLY',
  });
  expect(writes).toBe(0);
});

test('a recording device refuses bitmaps of a disk of another size', () => {
  const bitmaps = new DirtyBitmaps({ size: SIZE + 1 });
  expect(() => new RecordingDevice(fakeDevice(SIZE), bitmaps)).toThrow(RangeError);
});

test('bitmaps of a node get what exports write, also what fails', async () => {
  await using graph = new Graph();
  await graph.addDevice('disk', fakeDevice(SIZE, FAILS));
  const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  await graph.changeBitmaps({ disk: [{ type: 'add', name: 'a' }] });
  await expect(guest.write(G, new Uint8Array(1))).rejects.toThrow('no');
  await guest.zero(3 * G, 10);
  const bitmap = await graph.node('disk').bitmap('a');
  expect([...bitmap.ranges()]).toEqual([
    { offset: G, length: G },
    { offset: 3 * G, length: G },
  ]);
});

test('a write for which the bitmaps of a node have no memory is made, and they are inconsistent', () => {
  const arena = Arena.create({ maximumBytes: 512 * 1024 });
  const size = 2 ** 40;
  const bitmaps = new DirtyBitmaps({ size, granularity: 512, arena });
  bitmaps.add({ name: 'a' });
  const never = async () => {};
  const kept = { bitmaps, canAdd: false, mustMark: false, mark: never, store: never };
  const log = new NodeBitmaps(size, kept);

  for (let at = 0; at < size; at += 2 ** 26) log.record(at, 512);
  expect(bitmaps.get('a').info).toMatchObject({ inconsistent: true, recording: false });
  bitmaps.record(0, 512);
  bitmaps.remove('a');
});
