import fs from 'node:fs';
import { LacunaError } from '../errors/index.js';
import { fileError } from '../files/index.js';
import { isPowerOfTwo } from '../util/index.js';
import { geometryOf } from './block-device.js';
import type { Limits } from './driver.js';

/** What was found out about an opened file. */
export interface FileKind {
  readonly isBlock: boolean;
  /** What tells it from all other files: `DEVICE:INODE`, or the number of a block device. */
  readonly inode: string;
  readonly size: number;
  readonly limits: Limits;
  /** Whether the file is known to hold no data at all, and so to read as zero. */
  isEmpty(fd: number): boolean;
}

const GIB = 1024 ** 3;

/**
 * File systems whose count of allocated sectors can be trusted: with others, 0 may mean "not told", and data
 * would be taken for zeroes. (The magic numbers of ext2 to ext4, XFS, Btrfs and tmpfs.)
 */
const COUNTS_BLOCKS = new Set([0xef53, 0x58465342, 0x9123683e, 0x01021994]);

/**
 * Opens a path as a disk and finds out what it is. The kind is looked at before opening, because opening has
 * effects of its own on some special files (a FIFO waits for a peer, a watchdog starts), and after it, because
 * the path may have changed meanwhile.
 */
export function inspect(filename: string, readOnly: boolean): { fd: number; kind: FileKind } {
  const flags = readOnly ? fs.constants.O_RDONLY : fs.constants.O_RDWR;
  let fd: number | undefined;
  try {
    checkKind(filename, fs.statSync(filename));
    fd = fs.openSync(filename, flags);
    const stat = fs.fstatSync(fd);
    checkKind(filename, stat);
    const kind = stat.isBlockDevice() ? blockKind(stat) : regularKind(filename, stat);
    return { fd, kind: { ...kind, inode: inodeOf(fd) } };
  } catch (error) {
    if (fd !== undefined) fs.closeSync(fd);
    if (error instanceof LacunaError) throw error;
    const action = readOnly ? 'open' : 'open for writing';
    throw fileError('ERR_DEVICE_OPEN', { action, device: filename }, error as Error);
  }
}

function checkKind(filename: string, stat: fs.Stats): void {
  if (stat.isFile() || stat.isBlockDevice()) return;
  if (stat.isDirectory()) {
    throw fileError('ERR_DEVICE_OPEN', { action: 'open', device: filename }, 'EISDIR');
  }
  const message = `Cannot open ${filename}: it is neither a regular file nor a block device`;
  throw new LacunaError('ERR_DEVICE_OPEN', message, { device: filename });
}

/** Of some file systems inode numbers are larger than what is exact otherwise. */
function inodeOf(fd: number): string {
  const { dev, ino, rdev } = fs.fstatSync(fd, { bigint: true });
  // The inode of a block device is but one of its names.
  return rdev === 0n ? `${dev}:${ino}` : `${rdev}`;
}

function regularKind(filename: string, stat: fs.Stats): Omit<FileKind, 'inode'> {
  if (!Number.isSafeInteger(stat.size)) {
    const message = `Cannot open ${filename}: files longer than 8 PiB - 1 are not supported`;
    throw new LacunaError('ERR_DEVICE_OPEN', message, { device: filename, errno: 'EFBIG' });
  }
  const preferred = isPowerOfTwo(stat.blksize) ? stat.blksize : 4096;
  const trusted = COUNTS_BLOCKS.has(fs.statfsSync(filename).type);
  return {
    isBlock: false,
    size: stat.size,
    limits: limitsOf(1, preferred),
    isEmpty: (fd) => trusted && isHole(fs.fstatSync(fd), stat.size),
  };
}

/** A file that was cut since it was opened has lost something, and is not one hole. */
function isHole({ blocks, size }: fs.Stats, opened: number): boolean {
  return blocks === 0 && size >= opened;
}

function blockKind(stat: fs.Stats): Omit<FileKind, 'inode'> {
  const { size, sector } = geometryOf(stat.rdev);
  return {
    isBlock: true,
    size,
    limits: limitsOf(sector, Math.max(sector, 4096)),
    isEmpty: () => false,
  };
}

function limitsOf(minimum: number, preferred: number): Limits {
  return {
    minimum,
    preferred,
    maximum: GIB,
    maximumZero: Number.MAX_SAFE_INTEGER,
    zeroAlignment: preferred,
    discardAlignment: preferred,
  };
}
