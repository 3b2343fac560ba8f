/** Makes an image that holds what several ones held, so that those between need not stay. */
import { randomBytes } from 'node:crypto';
import { type Drive, storeImage } from '../backup/index.js';
import { checkedDevice, differences, NEW, type OpenDisk } from '../disks/index.js';
import type { RepositoryOperations } from '../layout/index.js';
import { DIGEST_BLOCK } from '../leaves/index.js';
import type { ImageState } from '../manifest/index.js';
import { type PlannedDisk, placed } from './plan-merges.js';

/** Stores the new image beside the old one, and returns what the manifest shall say of it. */
export async function storeMerged(
  disk: OpenDisk,
  planned: PlannedDisk,
  drive: Drive,
  operations: RepositoryOperations,
): Promise<ImageState> {
  const { points, number, name, layers } = disk;
  const [{ state: old }] = layers;
  const below = disk.lower(1 + planned.taken);
  const dirty = below && differences(disk, below);
  try {
    if (disk.size === disk.device.size) await disk.checkZeroes(undefined, drive.control.ending);
    const image = {
      places: points.places,
      disk: name,
      filename: old.name + NEW,
      leavesName: `${old.name.replace(/\.qcow2$/, '')}-${randomBytes(4).toString('hex')}.leaves`,
      // An image has a multiple of 512 bytes, and the disk need not.
      source: disk.size === disk.device.size ? disk.device : checkedDevice(disk),
      parent: below && { ...below, number: planned.over },
      dirty,
      check: disk.check,
    };
    const compress = old.compression ?? undefined;
    const { file, digest } = await storeImage(image, { ...drive, compress }, operations);
    const { digest: wanted } = points.diskOf(number, name);
    if (digest !== wanted)
      throw points.damaged(number, `merging disk ${name} did not give it back`);
    return placed({ ...file, name: old.name }, planned);
  } finally {
    dirty?.free();
  }
}

/** About how many bytes the image would take. */
export function estimate(disk: OpenDisk, { taken }: PlannedDisk): number {
  const below = disk.lower(1 + taken);
  if (below === undefined) {
    let blocks = 0;
    for (const _ of disk.leaves.dataBlocks()) blocks++;
    return blocks * DIGEST_BLOCK;
  }
  const dirty = differences(disk, below);
  try {
    return dirty.dirtyBytes;
  } finally {
    dirty.free();
  }
}
