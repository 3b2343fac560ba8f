/** Makes an image that holds what several ones held, so that those between need not stay. */
import { randomBytes } from 'node:crypto';
import { Bitmap } from '../../bitmap/index.js';
import { type Drive, storeImage } from '../backup/index.js';
import { checkedDevice, NEW, type OpenDisk } from '../disks/index.js';
import type { RepositoryOperations } from '../layout/index.js';
import { DIGEST_BLOCK, DIGEST_BYTES, PART_BLOCKS, ZERO_LEAF } from '../leaves/index.js';
import type { ImageState } from '../manifest/index.js';

/** What a disk of a point is going to lie over. */
export interface Merge {
  readonly disk: OpenDisk;
  /** Undefined where nothing will lie below. */
  readonly below: OpenDisk | undefined;
}

/** Stores the new image beside the old one, and returns what the manifest shall say of it. */
export async function storeMerged(
  { disk, below }: Merge,
  drive: Drive,
  operations: RepositoryOperations,
): Promise<ImageState> {
  const { points, number, name, layers } = disk;
  const [{ state: old }] = layers;
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
      parent: below,
      dirty,
      check: disk.check,
    };
    const compress = old.compression ?? undefined;
    const { file, digest } = await storeImage(image, { ...drive, compress }, operations);
    const { digest: wanted } = points.diskOf(number, name);
    if (digest !== wanted)
      throw points.damaged(number, `merging disk ${name} did not give it back`);
    return { ...file, name: old.name };
  } finally {
    dirty?.free();
  }
}

/** The blocks that are not what they are below. */
function differences(disk: OpenDisk, below: OpenDisk): Bitmap {
  const different = new Bitmap({ size: disk.size, granularity: DIGEST_BLOCK });
  for (const part of changedParts(disk, below)) {
    const end = Math.min(disk.leaves.blocks, (part + 1) * PART_BLOCKS);
    for (let block = part * PART_BLOCKS; block < end; block++) {
      if (disk.leaves.digestOf(block).equals(below.leaves.digestOf(block))) continue;
      const offset = block * DIGEST_BLOCK;
      different.set(offset, Math.min(DIGEST_BLOCK, disk.size - offset));
    }
  }
  return different;
}

/** The parts that have other digests. */
function changedParts(disk: OpenDisk, below: OpenDisk): number[] {
  const [own, old] = [disk.leaves.parts(), below.leaves.parts()];
  const parts = new Set([...own.keys(), ...old.keys()]);
  return [...parts]
    .filter((part) => {
      const [digest, before] = [own.get(part), old.get(part)];
      return digest === undefined || before === undefined || !digest.equals(before);
    })
    .sort((a, b) => a - b);
}

/** About how many bytes an image would take that holds so. */
export function estimate({ disk, below }: Merge): number {
  if (below === undefined) {
    let blocks = 0;
    for (const part of disk.leaves.parts().keys()) blocks += dataIn(disk, part);
    return blocks * DIGEST_BLOCK;
  }
  const dirty = differences(disk, below);
  try {
    return dirty.dirtyBytes;
  } finally {
    dirty.free();
  }
}

function dataIn({ leaves }: OpenDisk, part: number): number {
  const digests = leaves.part(part);
  let count = 0;
  for (let i = 0; i < PART_BLOCKS; i++) {
    const at = i * DIGEST_BYTES;
    if (!ZERO_LEAF.equals(digests.subarray(at, at + DIGEST_BYTES))) count++;
  }
  return count;
}
