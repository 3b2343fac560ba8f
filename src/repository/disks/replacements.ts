/** Ends what a prune that died has begun: an image that was being replaced is the old one or the new one now. */
import type { RepositoryOperations } from '../layout/index.js';
import { type Manifest, replaceManifest } from '../manifest/index.js';
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
    if (!point.disks.some(({ replacement }) => replacement !== undefined)) continue;
    const disks: Manifest['disks'][number][] = [];
    for (const { replacement: _, ...disk } of points.get(point.number).disks) {
      const [{ state: file }] = await layersOf(points, point.number, disk.name);
      disks.push({ ...disk, file });
    }
    replaceManifest(points.places, { ...point, disks }, operations);
    isChanged = true;
  }
  return isChanged;
}
