import { createRawFile, openDevice } from 'lacuna';
import { BitmapFile } from 'lacuna/bitmap';
import { Graph } from 'lacuna/graph';
import { beforeEach, describe, expect, test } from 'vitest';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const G = 65_536;
const SIZE = 8 * G;
const disk = { 'node-name': 'disk', driver: 'file', filename: 'disk.raw' } as const;
const options = { writable: true, bitmapFile: 'disk.bitmaps' };

async function withDisk(
  work: (graph: Graph) => Promise<void>,
  more: { trustBitmaps?: boolean } = {},
): Promise<void> {
  const graph = new Graph();
  await graph.add(disk, { ...options, ...more });
  await work(graph);
  await graph.close();
}

async function write(graph: Graph, granule: number): Promise<void> {
  const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  await guest.write(granule * G, new Uint8Array(10).fill(1));
  await guest.close();
}

beforeEach(async () => {
  await createRawFile('disk.raw', SIZE);
  await withDisk(async (graph) => {
    const add = { type: 'add', persistent: true } as const;
    await graph.changeBitmaps({
      disk: [
        { ...add, name: 'records' },
        { ...add, name: 'rests', disabled: true },
        { type: 'add', name: 'lost' },
      ],
    });
    await write(graph, 2);
  });
});

describe('bitmaps in a file beside a raw disk', () => {
  test('go on where they were when the disk was closed', async () => {
    await withDisk(async (graph) => {
      expect(graph.node('disk').bitmaps).toMatchObject([
        { name: 'records', recording: true, inconsistent: false },
        { name: 'rests', recording: false, inconsistent: false },
      ]);
      await write(graph, 5);
      const bitmap = await graph.node('disk').bitmap('records');
      expect([...bitmap.ranges()].map(({ offset }) => offset / G)).toEqual([2, 5]);
    });
  });

  test('are inconsistent where somebody has written the disk meanwhile, even with the same bytes', async () => {
    {
      await using device = await openDevice('disk.raw', { writable: true });
      await device.write(0, new Uint8Array(1));
    }
    await withDisk(async (graph) => {
      const states = graph.node('disk').bitmaps.map(({ inconsistent }) => inconsistent);
      expect(states).toEqual([true, true]);
      await write(graph, 1);
      await graph.changeBitmaps({ disk: [{ type: 'remove', name: 'rests' }] });
    });
    await withDisk(async (graph) => {
      expect(graph.node('disk').bitmaps).toMatchObject([{ name: 'records', inconsistent: true }]);
    });
  });

  test('are good all the same where the caller says so', async () => {
    {
      await using device = await openDevice('disk.raw', { writable: true });
      await device.write(0, new Uint8Array(1));
    }
    await withDisk(
      async (graph) => {
        expect(graph.node('disk').bitmaps).toMatchObject([
          { inconsistent: false },
          { inconsistent: false },
        ]);
      },
      { trustBitmaps: true },
    );
  });

  test('are inconsistent where the process died, if they recorded or the disk was written', async () => {
    const graph = new Graph();
    await graph.add(disk, options);
    await write(graph, 1);
    // What a crash leaves is what is there now.
    const left = BitmapFile.open('disk.bitmaps', { size: SIZE, readOnly: true });
    expect(left.bitmaps.map(({ name, inconsistent }) => [name, inconsistent])).toEqual([
      ['records', true],
      ['rests', false],
    ]);
    left.close();
    const second = new Graph();
    const copy = { ...disk, locking: 'off' } as const;
    await second.add(copy, { bitmapFile: 'disk.bitmaps' });
    expect(second.node('disk').bitmaps).toMatchObject([
      { inconsistent: true, readOnly: true },
      { inconsistent: true, readOnly: true },
    ]);
    await second.close();
    await graph.close();
  });

  test('are stored while the disk is in use', async () => {
    await withDisk(async (graph) => {
      await write(graph, 7);
      await graph.storeBitmaps('disk');
      const stored = BitmapFile.open('disk.bitmaps', { size: SIZE, readOnly: true });
      expect(stored.bitmaps.map(({ name }) => name)).toEqual(['records', 'rests']);
      stored.close();
    });
  });

  test('are not for images, which keep their own, nor for files that images make longer', async () => {
    const { createQcow2 } = await import('lacuna');
    await createQcow2('disk.qcow2', { size: SIZE });
    const graph = new Graph();
    const file = { driver: 'file', filename: 'disk.qcow2' } as const;
    const image = graph.add({ driver: 'qcow2', file }, { ...options, bitmapFile: 'x' });
    await expect(image).rejects.toThrow('keeps its bitmaps itself');
    await graph.add({ 'node-name': 'protocol', ...file }, { ...options, bitmapFile: 'y' });
    const over = graph.add({ driver: 'qcow2', file: 'protocol' }, { writable: true });
    await expect(over).rejects.toMatchObject({ code: 'ERR_GRAPH_CONFLICT' });
    expect(graph.nodes.map(({ name }) => name)).toEqual(['protocol']);
    await graph.close();
  });
});
