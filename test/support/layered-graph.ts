import { readFileSync } from 'node:fs';
import { createQcow2, createRawFile, openDevice } from 'lacuna';
import { Graph, type Root } from 'lacuna/graph';
import { ManualDisk } from './manual-disk.js';

export const GRANULE = 65_536;

/** Room for the tables of an image whose clusters are elsewhere. */
const FILE_BYTES = 4 * 1024 * 1024;

/** An image over a disk in memory; requests to the disk and to the image's own clusters may wait for the test. */
export interface LayeredGraph {
  readonly graph: Graph;
  /** Below the image. */
  readonly base: ManualDisk;
  /** Where the image keeps its clusters. */
  readonly data: ManualDisk;
  /** Where it keeps its header and tables. */
  readonly file: ManualDisk;
  /** Writes the image, the node `top`, or reads it only. */
  readonly guest: Root;
}

/**
 * All of it is in memory, so that nothing waits for anything but the test.
 *
 * @param content of the disk below.
 * @param options `size` is that of the image: behind the end of the disk below it reads as zero.
 */
export async function layeredGraph(
  content: Uint8Array,
  { writable = true, drainLimitMs = 2 ** 30, size = content.length } = {},
): Promise<LayeredGraph> {
  await createRawFile('base.raw', content.length);
  await createQcow2('top.qcow2', {
    size,
    backing: { filename: 'base.raw', format: 'raw' },
    dataFile: 'top.data',
  });
  const graph = new Graph({ drainLimitMs });
  const base = new ManualDisk(content.length, 'base');
  const data = new ManualDisk(size, 'data');
  base.isFree = true;
  data.isFree = true;
  base.bytes.set(content);
  const file = new ManualDisk(FILE_BYTES, 'file');
  file.isFree = true;
  file.bytes.set(readFileSync('top.qcow2'));
  await graph.addDevice('base', base.device);
  await graph.addDevice('data', data.device);
  await graph.addDevice('file', file.device);
  await graph.add(
    { 'node-name': 'top', driver: 'qcow2', file: 'file', backing: 'base', 'data-file': 'data' },
    { writable },
  );
  const guest = await graph.addExport({ name: 'guest', node: 'top', writable });
  return { graph, base, data, file, guest };
}

/** What layers of a chain hold: a byte for each granule, 0 for zeroes, undefined where the layer holds nothing. */
export type Layer = readonly (number | undefined)[];

/** Makes a chain of images, `0.qcow2` at the bottom, each with the granules that it is given. */
export async function makeChain(layers: readonly Layer[]): Promise<string[]> {
  const names = layers.map((_, i) => `${i}.qcow2`);
  for (const [i, layer] of layers.entries()) {
    const backing = i === 0 ? {} : { backing: { filename: names[i - 1], format: 'qcow2' } };
    await createQcow2(names[i], { size: layer.length * GRANULE, ...backing });
    await using device = await openDevice(names[i], { writable: true });
    for (const [granule, value] of layer.entries()) {
      if (value === undefined) continue;
      if (value === 0) await device.zero(granule * GRANULE, GRANULE);
      else await device.write(granule * GRANULE, new Uint8Array(GRANULE).fill(value));
    }
  }
  return names;
}

/** What a chain shows: a byte for each granule. */
export function shownBy(layers: readonly Layer[]): number[] {
  const top = layers.at(-1)!;
  const below = layers.length > 1 ? shownBy(layers.slice(0, -1)) : [];
  return top.map((value, granule) => value ?? below[granule] ?? 0);
}

/** The same of an open device: -1 for a granule that has more than one value. */
export async function granulesOf(device: {
  size: number;
  read(offset: number, target: Uint8Array): Promise<void>;
}): Promise<number[]> {
  const bytes = new Uint8Array(device.size);
  await device.read(0, bytes);
  return Array.from({ length: device.size / GRANULE }, (_, granule) => {
    const part = bytes.subarray(granule * GRANULE, (granule + 1) * GRANULE);
    return part.every((byte) => byte === part[0]) ? part[0] : -1;
  });
}
