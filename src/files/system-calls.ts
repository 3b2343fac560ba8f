import { getSystemErrorName } from 'node:util';
import { bindCalls, type Koffi } from '../util/index.js';

/**
 * The calls on files that Node lacks, where there are any. What returns a number returns a negative errno for a failure.
 * Attributes are read and written whole.
 */
export interface FileCalls {
  /** Takes the lock of a whole file (flock), without waiting for it. */
  lock(fd: number): number;
  /** Names of the extended attributes of what a path leads to. */
  attributes(path: string): string[] | number;
  attribute(path: string, name: string): Buffer | number;
  setAttribute(fd: number, name: string, value: Uint8Array): number;
  removeAttribute(fd: number, name: string): number;
  /** What keeps a path from being changed; undefined where nothing does, or nobody tells. */
  sealOf(path: string): 'immutable' | 'append' | undefined;
}

const LOCK_EXCLUSIVE = 2;
const LOCK_NO_WAIT = 4;

/** The kernel allows no more for a list, nor for a value. */
const MOST_BYTES = 65536;

/** `struct statx`, and where it has its attributes. */
const STATX_BYTES = 256;
const STATX_ATTRIBUTES = 8;
const ATTR_IMMUTABLE = 0x10n;
const ATTR_APPEND = 0x20n;
const AT_FDCWD = -100;

let calls: { bound: FileCalls | undefined } | undefined;

/** The calls, bound once for each thread; undefined where `bindCalls` cannot. */
export function fileCalls(): FileCalls | undefined {
  calls ??= { bound: bindCalls(declare) };
  return calls.bound;
}

/** The name of the errno in a negative result. */
export function errnoName(result: number): string {
  return getSystemErrorName(result);
}

function declare(koffi: Koffi): FileCalls {
  const libc = koffi.load(null);
  const flock = libc.func('int flock(int, int)');
  const listxattr = libc.func('int64_t listxattr(const char *, void *, size_t)');
  const getxattr = libc.func('int64_t getxattr(const char *, const char *, void *, size_t)');
  const fsetxattr = libc.func('int fsetxattr(int, const char *, const void *, size_t, int)');
  const fremovexattr = libc.func('int fremovexattr(int, const char *)');
  const statx = optional(() => libc.func('int statx(int, const char *, int, uint32_t, void *)'));
  const { EINTR } = koffi.os.errno;

  const result = (call: () => number): number => {
    for (;;) {
      const value = call();
      if (value >= 0) return value;
      if (koffi.errno() !== EINTR) return -koffi.errno();
    }
  };
  return {
    lock: (fd) => result(() => flock(fd, LOCK_EXCLUSIVE | LOCK_NO_WAIT)),
    attributes: (path) => {
      const bytes = Buffer.alloc(MOST_BYTES);
      const length = result(() => Number(listxattr(path, bytes, bytes.length)));
      if (length < 0) return length;
      return bytes.toString('utf8', 0, length).split('\0').filter(Boolean);
    },
    attribute: (path, name) => {
      const bytes = Buffer.alloc(MOST_BYTES);
      const length = result(() => Number(getxattr(path, name, bytes, bytes.length)));
      return length < 0 ? length : bytes.subarray(0, length);
    },
    setAttribute: (fd, name, value) => {
      const bytes = Buffer.from(value);
      return result(() => fsetxattr(fd, name, bytes, bytes.length, 0));
    },
    removeAttribute: (fd, name) => result(() => fremovexattr(fd, name)),
    sealOf: (path) => {
      const bytes = Buffer.alloc(STATX_BYTES);
      if (statx === undefined || statx(AT_FDCWD, path, 0, 0, bytes) < 0) return undefined;
      const attributes = bytes.readBigUInt64LE(STATX_ATTRIBUTES);
      if (attributes & ATTR_IMMUTABLE) return 'immutable';
      return attributes & ATTR_APPEND ? 'append' : undefined;
    },
  };
}

/** Not every C library has it. */
function optional<T>(bind: () => T): T | undefined {
  try {
    return bind();
  } catch {
    return undefined;
  }
}
