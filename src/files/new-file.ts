import { closeSync, fstatSync, fsyncSync, lstatSync, openSync, rmSync } from 'node:fs';
import { fileError } from './file-error.js';
import { syncFolder } from './operations.js';
import { inodeOf } from './places.js';

export interface MakeOptions {
  /** Fail where there is a file already. */
  readonly exclusive: boolean;
  /** Paths of other files that are made with it. */
  readonly also: readonly string[];
}

/**
 * Makes a file, durably. One that was not there before is taken away again where that fails.
 *
 * @param make is told which file was made for it; undefined where it replaces the content of one that is there.
 * @throws LacunaError ERR_DEVICE_OPEN, ERR_DEVICE_IO, and what `make` throws.
 */
export async function makeFile(
  path: string,
  { exclusive, also }: MakeOptions,
  make: (inode: string | undefined) => Promise<void>,
): Promise<void> {
  const inode = begin(path, exclusive);
  try {
    await make(inode);
    for (const made of [path, ...also]) await sync(made);
  } catch (error) {
    if (inode !== undefined) removeOwn(path, inode);
    throw error;
  }
}

/** What tells the new file from all others; undefined where there is one that may be replaced. */
function begin(path: string, exclusive: boolean): string | undefined {
  try {
    const fd = openSync(path, 'wx');
    try {
      return inodeOf(fstatSync(fd, { bigint: true }));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (!exclusive && (error as NodeJS.ErrnoException).code === 'EEXIST') return undefined;
    const request = { action: 'create', device: path, making: true };
    throw fileError('ERR_DEVICE_OPEN', request, error as Error);
  }
}

async function sync(path: string): Promise<void> {
  try {
    const fd = openSync(path, 'r+');
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw fileError('ERR_DEVICE_IO', { action: 'sync', device: path }, error as Error);
  }
  await syncFolder(path);
}

/** Unless another file has the name by now. */
function removeOwn(path: string, inode: string): void {
  const named = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  if (named && inodeOf(named) === inode) rmSync(path, { force: true });
}
