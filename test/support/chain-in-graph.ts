import { openDevice } from 'lacuna';
import { Graph, type Root } from 'lacuna/graph';
import { granulesOf, type Layer, makeChain } from './layered-graph.js';

const _ = undefined;

/** Three layers, the lowest first: some granules hide others, with data or with zeroes. */
export const LAYERS: readonly Layer[] = [
  [1, 1, 1, _, 1, 1, _, _],
  [_, 2, _, 2, 0, _, _, _],
  [_, _, 3, _, _, _, _, 0],
];

/** A chain of images in a graph, and its user. */
export interface Chain {
  readonly graph: Graph;
  readonly guest: Root;
}

/** The description of an image in a file. */
export const image = (filename: string) =>
  ({ driver: 'qcow2', file: { driver: 'file', filename } }) as const;

/** Makes a chain and opens it: the images are the nodes `top`, `top.backing` and so on. */
export async function openChain(
  layers: readonly Layer[] = LAYERS,
  writable = true,
): Promise<Chain> {
  const names = await makeChain(layers);
  const graph = new Graph();
  await graph.add({ 'node-name': 'top', ...image(names.at(-1)!) }, { writable });
  const guest = await graph.addExport({ name: 'guest', node: 'top', writable });
  return { graph, guest };
}

/** What an image shows, and which backing file it names. */
export async function shown(
  path: string,
): Promise<{ granules: number[]; backing: string | undefined }> {
  await using device = await openDevice(path);
  return { granules: await granulesOf(device), backing: device.details?.backingFile };
}
