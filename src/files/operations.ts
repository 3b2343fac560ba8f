import fs from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { fileError } from './file-error.js';

/** Everything that changes a file that is replaced, one step each, so that a test can cut the power between any two. */
export interface FileOperations {
  /** Makes an empty file for reading and writing; fails where there is something of that name, be it a link. */
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

const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = fs.constants;

export const fileOperations: FileOperations = {
  create: (path, mode) => fs.openSync(path, O_RDWR | O_CREAT | O_EXCL | (O_NOFOLLOW ?? 0), mode),
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

const fsync = promisify(fs.fsync);

/**
 * Makes the name of a file durable, which is kept by the folder that holds it: flushing a new or renamed file saves
 * its bytes, but not the way to them.
 *
 * @throws LacunaError ERR_DEVICE_IO
 */
export async function syncFolder(filename: string): Promise<void> {
  const folder = dirname(filename);
  let fd: number | undefined;
  try {
    fd = fs.openSync(folder, fs.constants.O_RDONLY);
    await fsync(fd);
  } catch (error) {
    throw fileError('ERR_DEVICE_IO', { action: 'sync', device: folder }, error as Error);
  } finally {
    if (fd !== undefined) fs.closeSync(fd);
  }
}
