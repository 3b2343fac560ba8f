import fs from 'node:fs';
import { LacunaError } from '../../../errors/index.js';
import { fileError } from '../../../files/index.js';
import { isPowerOfTwo, SIZE_LIMIT } from '../../../util/index.js';
import type { Limits } from '../../contract/index.js';
import { geometryOf, isReadOnly, mountsOf } from './block-device.js';

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

/** What is asked of the system, so that a test can play a device of any kind. */
export interface InspectOperations {
  stat(path: string): fs.Stats;
  open(path: string, flags: number): number;
  fstat(fd: number): fs.Stats;
  geometryOf: typeof geometryOf;
  isReadOnly: typeof isReadOnly;
  mountsOf: typeof mountsOf;
}

const SYSTEM: InspectOperations = {
  stat: (path) => fs.statSync(path),
  open: (path, flags) => fs.openSync(path, flags),
  fstat: (fd) => fs.fstatSync(fd),
  geometryOf,
  isReadOnly,
  mountsOf,
};

export interface InspectOptions {
  readonly readOnly: boolean;
  /**
   * A block device that is written is opened as mkfs does: not while it is mounted, or the kernel uses it, nor any part of
   * it.
   */
  readonly alone: boolean;
  readonly operations?: InspectOperations;
}

/**
 * Opens a path as a disk and finds out what it is. The kind is looked at before opening, because opening has
 * effects of its own on some special files (a FIFO waits for a peer, a watchdog starts), and after it, because
 * the path may have changed meanwhile.
 *
 * @throws LacunaError ERR_DEVICE_OPEN; ERR_DEVICE_LOCKED for a block device that is in use
 */
export function inspect(
  filename: string,
  { readOnly, alone, operations = SYSTEM }: InspectOptions,
): { fd: number; kind: FileKind } {
  const { O_RDONLY, O_RDWR, O_EXCL } = fs.constants;
  let fd: number | undefined;
  let isBlock = false;
  try {
    const seen = operations.stat(filename);
    checkKind(filename, seen);
    isBlock = seen.isBlockDevice();
    if (isBlock && !readOnly) refuseReadOnly(filename, seen, operations);
    const exclusive = isBlock && alone && !readOnly ? O_EXCL : 0;
    fd = operations.open(filename, readOnly ? O_RDONLY : O_RDWR | exclusive);
    const stat = operations.fstat(fd);
    checkKind(filename, stat);
    const kind = stat.isBlockDevice()
      ? blockKind(filename, stat, operations)
      : regularKind(filename, stat);
    return { fd, kind: { ...kind, inode: inodeOf(fd) } };
  } catch (error) {
    if (fd !== undefined) fs.closeSync(fd);
    if (error instanceof LacunaError) throw error;
    const { code = '' } = error as NodeJS.ErrnoException;
    if (isBlock && code === 'EBUSY') throw inUse(filename, operations);
    if (isBlock && NO_MEDIUM.has(code)) throw notReady(filename, code);
    const action = readOnly ? 'open' : 'open for writing';
    throw fileError('ERR_DEVICE_OPEN', { action, device: filename, isBlock }, error as Error);
  }
}

/** What the kernel says of a drive without a disk, and of a device that nothing is attached to. */
const NO_MEDIUM = new Set(['ENOMEDIUM', 'ENXIO']);

/** Some kernels let it be opened, and fail the first write. */
function refuseReadOnly(
  filename: string,
  { rdev }: fs.Stats,
  { isReadOnly }: InspectOperations,
): void {
  if (!isReadOnly(rdev)) return;
  const message = `Cannot open ${filename} for writing: the device is read-only; look at its switch, or at "blockdev --getro ${filename}"`;
  throw new LacunaError('ERR_DEVICE_OPEN', message, { device: filename, errno: 'EROFS' });
}

function inUse(filename: string, { stat, mountsOf }: InspectOperations): LacunaError {
  const mounts = mountsOf(stat(filename).rdev);
  const how =
    mounts.length > 0
      ? `it is mounted on ${mounts.join(', ')}`
      : 'it, or a part of it, is mounted, or the system uses it (swap, LVM, RAID, or a program that wants it alone)';
  const message = `Cannot open ${filename} for writing: ${how}. Free it first ("lsblk ${filename}" shows by whom it is used), or insist with locking=off (--force-in-use of copy and serve), which may destroy what is there`;
  return new LacunaError('ERR_DEVICE_LOCKED', message, { device: filename, errno: 'EBUSY' });
}

function notReady(filename: string, errno: string): LacunaError {
  const message = `Cannot open ${filename}: the device is not ready: it has no bytes; put a medium into it, or attach something to it`;
  return new LacunaError('ERR_DEVICE_OPEN', message, { device: filename, errno });
}

function checkKind(filename: string, stat: fs.Stats): void {
  if (stat.isFile() || stat.isBlockDevice()) return;
  if (stat.isDirectory()) {
    throw fileError('ERR_DEVICE_OPEN', { action: 'open', device: filename }, 'EISDIR');
  }
  const message = `Cannot open ${filename}: ${whatElse(filename, stat)}`;
  throw new LacunaError('ERR_DEVICE_OPEN', message, { device: filename });
}

/** Names of the streams of a process. */
const STREAM = /^\/(dev\/(stdin|stdout|stderr|fd\/\d+)|proc\/(self|\d+)\/fd\/\d+)$/;

/** Device numbers of Linux: the memory devices have the major number 1. */
const [NULL, ZERO] = [0x103, 0x105];

/** What is not a disk, and what may be meant instead. */
function whatElse(filename: string, stat: fs.Stats): string {
  if (stat.isSocket()) {
    return `it is a socket: the disk of an NBD server that listens there is nbd+unix:///?socket=${encodeURI(filename)}`;
  }
  const isNull = stat.isCharacterDevice() && (stat.rdev === NULL || stat.rdev === ZERO);
  if (isNull) {
    return 'it is not a disk; null: is one that reads as zero and forgets what is written ({"driver":"null","size":...} gives it a size)';
  }
  if (stat.isFIFO() || STREAM.test(filename)) {
    return 'it is a stream, not a disk: copy takes - for standard input as the source, and for standard output as the target';
  }
  return 'it is neither a regular file nor a block device';
}

/** Of some file systems inode numbers are larger than what is exact otherwise. */
function inodeOf(fd: number): string {
  const { dev, ino, rdev } = fs.fstatSync(fd, { bigint: true });
  // The inode of a block device is but one of its names.
  return rdev === 0n ? `${dev}:${ino}` : `${rdev}`;
}

function regularKind(filename: string, stat: fs.Stats): Omit<FileKind, 'inode'> {
  if (!Number.isSafeInteger(stat.size)) {
    const message = `Cannot open ${filename}: files end at ${SIZE_LIMIT} here`;
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

function blockKind(
  filename: string,
  stat: fs.Stats,
  { geometryOf }: InspectOperations,
): Omit<FileKind, 'inode'> {
  const { size, sector } = geometryOf(stat.rdev);
  if (size === 0) throw notReady(filename, 'ENOMEDIUM');
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
