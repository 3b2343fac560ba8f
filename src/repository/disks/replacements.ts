/**
 * Ends what a prune that died has begun: an image that was being replaced is the old one or the new one now, and where an image
 * was kept of a point that is still there, it is that point which is below.
 */
import type { RepositoryOperations } from '../layout/index.js';
import {
  type GoneImage,
  type ImageState,
  type Manifest,
  replaceManifest,
} from '../manifest/index.js';
import { layersOf } from './layers.js';
import type { MachinePoints } from './points.js';

/**
 * Makes manifests say which image is there. The caller holds a lock that keeps others from changing the machine.
 *
 * @returns whether anything was changed, so that the manifests must be read again.
 */
export async function settleReplacements(
  points: MachinePoints,
  operations: RepositoryOperations,
): Promise<boolean> {
  let isChanged = false;
  for (const point of points.points) {
    const isBegun = point.disks.some(
      ({ name, file, replacement }) => replacement !== undefined || isKeptTwice(points, name, file),
    );
    if (!isBegun) continue;
    const disks: Manifest['disks'][number][] = [];
    for (const { replacement: _, ...disk } of points.get(point.number).disks) {
      const [{ state: file }] = await layersOf(points, point.number, disk.name);
      disks.push({ ...disk, file: overPoints(points, disk.name, file) });
    }
    replaceManifest(points.places, { ...point, disks }, operations);
    isChanged = true;
  }
  return isChanged;
}

function isKeptTwice(points: MachinePoints, disk: string, { below = [] }: ImageState): boolean {
  return below.some((image) => isOfPoint(points, disk, image));
}

/** Whether the point of an image that was kept is still there, and has it. */
function isOfPoint(points: MachinePoints, disk: string, { number, name }: GoneImage): boolean {
  if (!points.has(number)) return false;
  return points.get(number).disks.some((one) => one.name === disk && one.file.name === name);
}

/** The same image, over the first point that is there. */
function overPoints(points: MachinePoints, disk: string, state: ImageState): ImageState {
  const { below = [] } = state;
  const first = below.findIndex((image) => isOfPoint(points, disk, image));
  if (first === -1) return state;
  const { below: _, ...file } = state;
  const rest = below.slice(0, first);
  return { ...file, parent: below[first].number, ...(rest.length > 0 && { below: rest }) };
}
