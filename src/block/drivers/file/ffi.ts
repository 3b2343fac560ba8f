import { getSystemErrorName } from 'node:util';
import { bindCalls, type Koffi } from '../../../util/index.js';

/**
 * The Linux calls that Node lacks. Each returns what the call returns, or a negative errno: a hole that is not
 * there is no exception.
 */
export interface SystemCalls {
  /** First byte of data at or behind `offset`. */
  seekData(fd: number, offset: number): number;
  /** First byte of a hole at or behind `offset`; every file ends in one. */
  seekHole(fd: number, offset: number): number;
  /** Sets the place in an open file where reading and writing go on. */
  seekTo(fd: number, offset: number): number;
  /** Gives a range space that reads as zero, where it has none yet. */
  allocate(fd: number, offset: number, length: number): number;
  /** Makes a range a hole that reads as zero. */
  punchHole(fd: number, offset: number, length: number): number;
  /** Makes a range read as zero and keeps its space. */
  zeroRange(fd: number, offset: number, length: number): number;
  /** Copies at most `length` bytes inside the kernel; returns how many. */
  copyFileRange(source: FilePosition, target: FilePosition, length: number): number;
  /** Takes a shared lock on a byte for this opening of the file, which must be open for reading. */
  lockByte(fd: number, offset: number): number;
  /** Gives the lock of this opening on a byte back. */
  unlockByte(fd: number, offset: number): number;
  /** 1 where another opening has a lock on the byte, 0 where none has. */
  isByteLocked(fd: number, offset: number): number;
}

export interface FilePosition {
  readonly fd: number;
  readonly offset: number;
}

const SEEK_SET = 0;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const KEEP_SIZE = 0x01;
const PUNCH_HOLE = 0x02;
const ZERO_RANGE = 0x10;
const OFD_GETLK = 36;
const OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

let calls: { bound: SystemCalls | undefined } | undefined;

/** Binds the calls, once for each thread; undefined where `bindCalls` cannot. */
export function systemCalls(): SystemCalls | undefined {
  calls ??= { bound: bindCalls(declare) };
  return calls.bound;
}

/** The name of the errno in a negative result. */
export function errnoName(result: number): string {
  return getSystemErrorName(result);
}

function declare(koffi: Koffi): SystemCalls {
  const libc = koffi.load(null);
  const lseek = libc.func('int64_t lseek(int, int64_t, int)');
  const fallocate = libc.func('int fallocate(int, int, int64_t, int64_t)');
  const copyFileRange = libc.func(
    'int64_t copy_file_range(int, int64_t *, int, int64_t *, size_t, unsigned int)',
  );
  const fcntl = libc.func('int fcntl(int, int, ...)');
  const sourceOffset = new BigInt64Array(1);
  const targetOffset = new BigInt64Array(1);
  const { EINTR } = koffi.os.errno;

  /** Again after a signal, as libuv does for the calls that Node has. */
  const result = (call: () => number): number => {
    for (;;) {
      const value = call();
      if (value >= 0) return value;
      if (koffi.errno() !== EINTR) return -koffi.errno();
    }
  };
  const lockByte = (fd: number, command: number, type: number, offset: number) => {
    const bytes = flockOf(type, offset);
    return { bytes, value: result(() => fcntl(fd, command, 'void *', bytes)) };
  };
  return {
    seekData: (fd, offset) => result(() => lseek(fd, offset, SEEK_DATA)),
    seekHole: (fd, offset) => result(() => lseek(fd, offset, SEEK_HOLE)),
    seekTo: (fd, offset) => result(() => lseek(fd, offset, SEEK_SET)),
    allocate: (fd, offset, length) => result(() => fallocate(fd, 0, offset, length)),
    punchHole: (fd, offset, length) =>
      result(() => fallocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, length)),
    zeroRange: (fd, offset, length) =>
      result(() => fallocate(fd, ZERO_RANGE | KEEP_SIZE, offset, length)),
    copyFileRange: (source, target, length) => {
      sourceOffset[0] = BigInt(source.offset);
      targetOffset[0] = BigInt(target.offset);
      return result(() =>
        copyFileRange(source.fd, sourceOffset, target.fd, targetOffset, length, 0),
      );
    },
    lockByte: (fd, offset) => lockByte(fd, OFD_SETLK, F_RDLCK, offset).value,
    unlockByte: (fd, offset) => lockByte(fd, OFD_SETLK, F_UNLCK, offset).value,
    isByteLocked: (fd, offset) => {
      const { bytes, value } = lockByte(fd, OFD_GETLK, F_WRLCK, offset);
      return value < 0 ? value : Number(bytes[0] !== F_UNLCK);
    },
  };
}

/**
 * `struct flock` of 64-bit Linux, about one byte: type and whence (2 bytes each), 4 bytes of padding, start and
 * length (8 bytes each), and the process, which must be 0 for locks that belong to an opening. Both supported
 * processors are little-endian.
 */
function flockOf(type: number, offset: number): Uint8Array {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  view.setInt16(0, type, true);
  view.setBigInt64(8, BigInt(offset), true);
  view.setBigInt64(16, 1n, true);
  return bytes;
}
