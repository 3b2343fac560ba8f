import fs from 'node:fs';
import { dirname } from 'node:path';
import { LacunaError } from '../errors/index.js';
import { describeRefusal } from '../errors/refusal.js';

/**
 * Everything that changes a file of bitmaps, one step each, so that a test can cut the power between
 * any two of them. All are synchronous: see BitmapFile.
 */
export interface FileOperations {
  /** Makes an empty file, or empties the one that is there, for reading and writing. */
  create(path: string, mode: number): number;
  /** Writes all of `bytes`. */
  write(fd: number, bytes: Uint8Array, position: number): void;
  /** Makes durable what was written to a file. */
  sync(fd: number): void;
  rename(from: string, to: string): void;
  /** Makes durable what a file is called. */
  syncFolder(path: string): void;
  remove(path: string): void;
}

export const fileOperations: FileOperations = {
  create: (path, mode) => fs.openSync(path, 'w+', mode),
  write(fd, bytes, position) {
    for (let done = 0; done < bytes.length; ) {
      done += fs.writeSync(fd, bytes, done, bytes.length - done, position + done);
    }
  },
  sync: (fd) => fs.fsyncSync(fd),
  rename: (from, to) => fs.renameSync(from, to),
  syncFolder(path) {
    const fd = fs.openSync(dirname(path), 'r');
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  },
  remove: (path) => fs.rmSync(path, { force: true }),
};

/** Opens an existing file; undefined when there is none. */
export function openExisting(path: string, readOnly: boolean): number | undefined {
  const { O_RDONLY, O_RDWR, O_NONBLOCK } = fs.constants;
  try {
    // A FIFO would otherwise wait for somebody at its other end.
    return fs.openSync(path, (readOnly ? O_RDONLY : O_RDWR) | O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw fileFailure('open', path, error);
  }
}

/** What the system said when it was asked to do something with a file of bitmaps. */
export function fileFailure(action: string, path: string, error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (error instanceof LacunaError || code === undefined) return error;
  const what = `cannot ${action} the file of bitmaps ${path}`;
  return new LacunaError(
    'ERR_BITMAP_FILE',
    describeRefusal(what, code, { making: action === 'store' }),
    { device: path, errno: code, cause: error },
  );
}

export function corrupt(path: string, what: string): LacunaError {
  return new LacunaError(
    'ERR_BITMAP_CORRUPT',
    `the file of bitmaps ${path} is damaged: ${what}. Remove it, add its bitmaps anew and make a ` +
      'full copy',
    { device: path },
  );
}
