import { type Device, openDevice } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { describe, expect, test } from 'vitest';
import { openChain, shown } from '../../support/chain-in-graph.js';
import { GRANULE as G } from '../../support/layered-graph.js';
import { ManualDisk } from '../../support/manual-disk.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const MIB = 1024 * 1024;

/** The same device, which notes what is written and zeroed in it. */
function noted(device: Device, notes: string[]): Device {
  return new Proxy(device, {
    get(target, key) {
      const value = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      return (...args: [number, Uint8Array | number]) => {
        const length = typeof args[1] === 'number' ? args[1] : args[1]?.length;
        if (key === 'write' || key === 'zero') notes.push(`${key} ${args[0] / G} ${length / G}`);
        return value.apply(target, args);
      };
    },
  });
}

describe('a backup of zeroes that count as data', () => {
  /** A MiB of ones, and one of zeroes. */
  async function backUp(options: object, before = 0xee) {
    const graph = new Graph();
    const [source, target] = ['disk', 'target'].map((name) => new ManualDisk(2 * MIB, name));
    for (const disk of [source, target]) disk.isFree = true;
    source.bytes.fill(1, 0, MIB);
    target.bytes.fill(before);
    const notes: string[] = [];
    await graph.addDevice('disk', source.device);
    await graph.addDevice('target', noted(target.device, notes));
    const job = graph.backup({ disks: [{ node: 'disk', target: 'target' }], ...options });
    const report = await job;
    await graph.close();
    expect(Buffer.compare(target.bytes, source.bytes)).toBe(0);
    return { notes: notes.sort(), report };
  }

  test('zeroes them in the target', async () => {
    const { notes, report } = await backUp({});
    expect(notes).toEqual(['write 0 16', 'zero 16 16']);
    expect(report).toEqual({ movedBytes: MIB, zeroedBytes: MIB });
  });

  test('writes them where they are not to be looked for', async () => {
    const { notes, report } = await backUp({ detectZeroes: 'off' });
    expect(notes).toEqual(['write 0 16', 'write 16 16']);
    expect(report).toEqual({ movedBytes: 2 * MIB, zeroedBytes: 0 });
  });

  test('leaves them out in a target that reads as zero', async () => {
    const { notes, report } = await backUp({ targetIsZero: true }, 0);
    expect(notes).toEqual(['write 0 16']);
    expect(report).toEqual({ movedBytes: MIB, zeroedBytes: 0 });
  });
});

/** A chain whose layer in the middle has zeroes as data in one granule. */
async function openWithZeroes() {
  await (await openChain()).graph.close();
  {
    await using middle = await openDevice('1.qcow2', { writable: true });
    await middle.write(5 * G, new Uint8Array(G));
  }
  const graph = new Graph();
  const file = { driver: 'file', filename: '2.qcow2' } as const;
  await graph.add({ 'node-name': 'top', driver: 'qcow2', file }, { writable: true });
  return graph;
}

const SHOWN = [1, 2, 3, 2, 0, 0, 0, 0];

describe('of zeroes in layers', () => {
  test.each([
    [{}, { movedBytes: 4 * G, zeroedBytes: G }],
    [{ detectZeroes: 'on' }, { movedBytes: 3 * G, zeroedBytes: 2 * G }],
    [{ detectZeroes: 'unmap' }, { movedBytes: 3 * G, zeroedBytes: 2 * G }],
    [{ targetIsZero: true }, { movedBytes: 4 * G, zeroedBytes: 0 }],
  ] as const)('a stream with %j moves what is said', async (options, moved) => {
    const graph = await openWithZeroes();
    expect(await graph.stream({ node: 'top', ...options })).toMatchObject(moved);
    await graph.close();
    expect(await shown('2.qcow2')).toEqual({ granules: SHOWN, backing: undefined });
  });

  test.each([
    [{}, { movedBytes: 3 * G, zeroedBytes: G }],
    [{ detectZeroes: 'on' }, { movedBytes: 2 * G, zeroedBytes: 2 * G }],
    [{ detectZeroes: 'unmap' }, { movedBytes: 2 * G, zeroedBytes: 2 * G }],
  ] as const)('a commit with %j moves what is said', async (options, moved) => {
    const graph = await openWithZeroes();
    const job = graph.commit({ node: 'top.backing', base: 'top.backing.backing', ...options });
    expect(await job).toMatchObject(moved);
    await graph.close();
    expect(await shown('2.qcow2')).toEqual({ granules: SHOWN, backing: '0.qcow2' });
  });

  test('a commit into a base that reads as zero leaves them out', async () => {
    await (
      await openChain([Array(8).fill(undefined), [1, 0, undefined], [0]].map(full))
    ).graph.close();
    const graph = new Graph();
    const file = { driver: 'file', filename: '2.qcow2' } as const;
    await graph.add({ 'node-name': 'top', driver: 'qcow2', file }, { writable: true });
    const job = graph.commit({
      ...{ node: 'top.backing', base: 'top.backing.backing', targetIsZero: true },
    });
    expect(await job).toMatchObject({ movedBytes: G, zeroedBytes: 0 });
    await graph.close();
    expect(await shown('0.qcow2')).toMatchObject({ granules: [1, 0, 0, 0, 0, 0, 0, 0] });
  });

  test.each([
    ['stream', (graph: Graph) => graph.stream({ node: 'top', detectZeroes: 'yes' as never })],
    [
      'commit',
      (graph: Graph) =>
        graph.commit({ node: 'top', base: 'top.backing', detectZeroes: 'yes' as never }),
    ],
    [
      'backup',
      (graph: Graph) =>
        graph.backup({ disks: [{ node: 'top', target: 't' }], detectZeroes: 'yes' as never }),
    ],
  ])('a %s refuses a word that it does not know', async (_, begin) => {
    const { graph } = await openChain();
    expect(() => begin(graph)).toThrow('detectZeroes must be');
    await graph.close();
  });
});

function full(layer: readonly (number | undefined)[]): (number | undefined)[] {
  return Array.from({ length: 8 }, (_, granule) => layer[granule]);
}
