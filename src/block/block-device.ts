import { readFileSync } from 'node:fs';

/** What the kernel tells of a block device. */
export interface Geometry {
  /** Bytes. */
  readonly size: number;
  /** Bytes in a logical sector, the unit of every request. */
  readonly sector: number;
}

/** The unit of /sys/dev/block/.../size, whatever the sector of the device. */
const SYSFS_SECTOR = 512;

/**
 * Reads a block device's size, which `stat` does not tell. A partition has no queue of its own: the one of its
 * disk, in the folder above, holds for it.
 *
 * @throws the system's error where there is no such device, or no sysfs.
 */
export function geometryOf(rdev: number): Geometry {
  const folder = `/sys/dev/block/${deviceNumber(rdev)}`;
  const size = readNumber(`${folder}/size`) * SYSFS_SECTOR;
  for (const queue of [`${folder}/queue`, `${folder}/../queue`]) {
    try {
      return { size, sector: readNumber(`${queue}/logical_block_size`) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return { size, sector: SYSFS_SECTOR };
}

/** `major:minor`, unpacked as the C library's macros do. */
function deviceNumber(rdev: number): string {
  const bits = BigInt(rdev);
  const major = ((bits >> 8n) & 0xfffn) | ((bits >> 32n) & ~0xfffn);
  const minor = (bits & 0xffn) | ((bits >> 12n) & 0xffff_ff00n);
  return `${major}:${minor}`;
}

function readNumber(path: string): number {
  return Number(readFileSync(path, 'latin1'));
}
