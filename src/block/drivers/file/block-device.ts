import { readFileSync, statSync } from 'node:fs';

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

/** Whether the kernel refuses writes to a block device; false where it does not tell. */
export function isReadOnly(rdev: number): boolean {
  return textOf(`/sys/dev/block/${deviceNumber(rdev)}/ro`) === '1';
}

/** Where a block device is mounted, as far as this process sees. */
export function mountsOf(rdev: number): string[] {
  const number = deviceNumber(rdev);
  const lines = textOf('/proc/self/mountinfo')?.split('\n') ?? [];
  // 36 35 98:0 / /mnt rw,noatime - ext4 /dev/sdb rw
  return lines.map((line) => line.split(' ')).flatMap((f) => (f[2] === number ? [f[4]] : []));
}

/**
 * Files of sysfs whose text stands for one disk, whatever name or number it gets when the machine starts anew; of those
 * that a device has, the first counts.
 */
const LASTING_NAMES = ['dm/uuid', 'md/uuid', 'wwid', 'device/wwid', 'serial', 'device/serial'];

/**
 * What tells a block device from every other one, also after the machine has started anew where the disk has a name of
 * its own (a serial number, a world wide name, a UUID). Where it has none, the text holds until the next start: then
 * nobody knows whether it is the same disk.
 */
export function lastingNameOf(rdev: number, sysfs = '/sys/dev/block'): string {
  const folder = `${sysfs}/${deviceNumber(rdev)}`;
  const partition = textOf(`${folder}/partition`);
  const disk = partition === undefined ? folder : `${folder}/..`;
  const part =
    partition === undefined ? '' : `, partition ${partition} at ${textOf(`${folder}/start`)}`;
  const file = textOf(`${disk}/loop/backing_file`);
  if (file !== undefined)
    return `${file} (${inodeOf(file)}) from ${textOf(`${disk}/loop/offset`)}${part}`;
  for (const name of LASTING_NAMES) {
    const text = textOf(`${disk}/${name}`);
    if (text) return `${text}${part}`;
  }
  const start = textOf('/proc/sys/kernel/random/boot_id');
  return `${deviceNumber(rdev)}, number ${textOf(`${disk}/diskseq`)} since start ${start}${part}`;
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}

function inodeOf(path: string): string {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? 'gone' : `inode ${stat.ino}`;
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
