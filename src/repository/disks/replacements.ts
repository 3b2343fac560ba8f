/**
 * Ends what a prune that died has begun: an image that was being replaced is the old one or the new one now, and where an image
 * was kept of a point that is still there, it is that point which is below.
 */
import type { RepositoryOperations } from '../layout/index.js';
import {
  type GoneImage,
  type ImageState,
  isDamage,
  type Manifest,
  replaceManifest,
} from '../manifest/index.js';
import { layerOf } from './layers.js';
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
    const disks = await settled(points, point.number);
    if (disks === undefined) continue;
    replaceManifest(points.places, { ...point, disks }, operations);
    isChanged = true;
  }
  return isChanged;
}

/** The disks of a point, over what they lie over; undefined where that cannot be told, because the point is damaged. */
async function settled(
  points: MachinePoints,
  number: number,
): Promise<Manifest['disks'] | undefined> {
  const disks: Manifest['disks'][number][] = [];
  try {
    for (const { replacement, ...disk } of points.get(number).disks) {
      const { name, file } = disk;
      // What lies below is not looked at: its damage is that of other points too, and keeps nobody from a new backup.
      const state = replacement === undefined ? file : (await layerOf(points, number, name)).state;
      disks.push({ ...disk, file: overPoints(points, name, state) });
    }
    return disks;
  } catch (error) {
    if (isDamage(error)) return undefined;
    throw error;
  }
}

function isKeptTwice(points: MachinePoints, disk: string, { below = [] }: ImageState): boolean {
  return below.some((image) => isOfPoint(points, disk, image));
}

/** Whether the point of an image that was kept is still there, and has it. */
function isOfPoint(points: MachinePoints, disk: string, { number, name }: GoneImage): boolean {
  const point = points.points.find((one) => one.number === number);
  return point?.disks.some((one) => one.name === disk && one.file.name === name) === true;
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
