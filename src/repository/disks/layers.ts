/** The images that make up a disk at a point: its own, that of its parent, and so on. */
import fs from 'node:fs';
import { openDevice, type Qcow2Description } from '../../block/index.js';
import { counted } from '../../util/index.js';
import { attempt } from '../layout/index.js';
import { type GoneImage, type ImageState, isDamage } from '../manifest/index.js';
import type { MachinePoints } from './points.js';

/** An image of a disk at a point. */
export interface Layer {
  readonly number: number;
  readonly disk: string;
  /** The state that the file is in; one of two while it is being replaced. */
  readonly state: ImageState;
  /** Its point is gone, and the one above has kept the image. */
  readonly isGone: boolean;
  /** The image. */
  readonly path: string;
  readonly leaves: string;
}

/**
 * The images of a disk, that of the point first.
 *
 * @throws LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_DAMAGED where one is not there.
 */
export async function layersOf(
  points: MachinePoints,
  number: number,
  disk: string,
): Promise<Layer[]> {
  const layers: Layer[] = [];
  // Of the point itself more is used than its images.
  points.diskOf(number, disk);
  let lowest = Number.POSITIVE_INFINITY;
  for (let at: number | null = number; at !== null; ) {
    if (layers.length > 0 && !points.has(at)) throw parentGone(points, layers.at(-1)!, at);
    if (at >= lowest) {
      throw points.damaged(layers.at(-1)!.number, `the parent of its disk ${disk} is not older`);
    }
    const layer = await layerOf(points, at, disk);
    const { below = [], parent } = layer.state;
    layers.push(layer, ...below.map((image) => goneLayer(points, at!, disk, image)));
    lowest = Math.min(lowest, at, ...below.map((image) => image.number));
    at = parent;
  }
  return layers;
}

/** An image that a point has kept of one that is gone. */
function goneLayer(points: MachinePoints, owner: number, disk: string, image: GoneImage): Layer {
  const { places } = points;
  const { number, ...file } = image;
  const path = places.file(disk, image.name);
  const state = { ...file, parent: null };
  checkSize(points, owner, { path, size: sizeOf(points, owner, path), state });
  const leaves = places.file(disk, image.leaves.name);
  return { number, disk, state, isGone: true, path, leaves };
}

/**
 * The image of a point itself.
 *
 * @throws LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_DAMAGED where it is not there.
 */
export async function layerOf(points: MachinePoints, number: number, name: string): Promise<Layer> {
  const { places } = points;
  const disk = points.diskBelow(number, name);
  const path = places.file(name, disk.file.name);
  const size = sizeOf(points, number, path);
  const isReplaced = disk.replacement !== undefined && (await isNew(points, number, name));
  const state = isReplaced ? disk.replacement! : disk.file;
  checkSize(points, number, { path, size, state });
  const leaves = places.file(name, state.leaves.name);
  return { number, disk: name, state, isGone: false, path, leaves };
}

function sizeOf(points: MachinePoints, number: number, path: string): number {
  const found = attempt('open', path, () => fs.statSync(path, { throwIfNoEntry: false }));
  if (found === undefined) throw points.damaged(number, `${path} is not there`, path);
  return found.size;
}

/** Most images of a chain are not opened for an increment over it: what was cut is found so. */
function checkSize(
  points: MachinePoints,
  number: number,
  { path, size, state }: { path: string; size: number; state: ImageState },
): void {
  if (size === state.size) return;
  const what = `${path} has ${counted(size, 'byte')}, and had ${state.size} when it was written`;
  throw points.damaged(number, what, path);
}

/** Whether an image that was being replaced is the new one; the two differ in what lies below. */
async function isNew(points: MachinePoints, number: number, name: string): Promise<boolean> {
  const { file, replacement } = points.diskBelow(number, name);
  const path = points.places.file(name, file.name);
  const found = await backingNameOf(path);
  const [old, fresh] = [file, replacement!].map((state) => backingOf(points, name, state));
  if (found === fresh) return true;
  if (found === old) return false;
  throw points.damaged(number, `${path} lies over ${found}, and not over ${old} or ${fresh}`, path);
}

/** The name of the image that lies directly below one. */
function backingOf(
  points: MachinePoints,
  disk: string,
  { below = [], parent }: ImageState,
): string | undefined {
  if (below.length > 0) return below[0].name;
  return parent === null || !points.has(parent)
    ? undefined
    : points.diskBelow(parent, disk).file.name;
}

async function backingNameOf(path: string): Promise<string | undefined> {
  await using device = await openDevice(describe(path, null));
  return device.details?.backingFile;
}

function parentGone(points: MachinePoints, { number, disk }: Layer, parent: number) {
  try {
    points.get(parent);
  } catch (error) {
    if (isDamage(error)) return error;
  }
  const what = `its disk ${disk} lies over point ${parent}, which is not there`;
  return points.damaged(number, what, points.places.manifest(parent));
}

/** How the disk is opened, by what manifests say, and not by the names in the images. */
export function describeLayers(layers: readonly Layer[]): Qcow2Description {
  return layers.reduceRight<Qcow2Description | null>(
    (backing, { path }) => describe(path, backing),
    null,
  )!;
}

function describe(filename: string, backing: Qcow2Description | null): Qcow2Description {
  return { driver: 'qcow2', file: { driver: 'file', filename }, backing };
}
