/** Files of a repository that are made, replaced and removed: each whole or not there, whatever happens. */
import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { LacunaError } from '../../errors/index.js';
import { type FileOperations, fileError, fileOperations, Replacement } from '../../files/index.js';

/** Everything that changes names in a repository, one step each, so that a test can stop between any two. */
export interface RepositoryOperations extends FileOperations {
  /** Gives a file a second name; fails where there is something of that name. */
  link(from: string, to: string): void;
}

export const repositoryOperations: RepositoryOperations = {
  ...fileOperations,
  link: (from, to) => fs.linkSync(from, to),
};

/** Makes folders where they are not there, and their names durable. */
export function makeFolder(path: string, { syncFolder }: RepositoryOperations): void {
  if (fs.existsSync(path)) return;
  makeFolder(dirname(path), { ...repositoryOperations, syncFolder });
  attempt('create', path, () => {
    fs.mkdirSync(path, { recursive: true });
    syncFolder(path);
  });
}

/** Writes a file, which takes the place of one of this name when it is durable. */
export function replaceFile(path: string, bytes: Uint8Array, operations: RepositoryOperations) {
  attempt('write', path, () => {
    const made = Replacement.create(path, { operations });
    try {
      operations.write(made.fd, bytes, 0);
      operations.sync(made.fd);
      made.finish();
      operations.syncFolder(made.name);
    } finally {
      made.removeUnfinished();
      made.close();
    }
  });
}

/**
 * Writes a file under a name that nothing has: when two do so at once, one of them fails.
 *
 * @returns false where there is something of that name.
 */
export function createFile(
  path: string,
  bytes: Uint8Array,
  operations: RepositoryOperations,
): boolean {
  return attempt('create', path, () => {
    const made = Replacement.create(path, { operations });
    try {
      operations.write(made.fd, bytes, 0);
      operations.sync(made.fd);
      operations.link(made.path, path);
      syncOrTakeBack(path, operations);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
      throw error;
    } finally {
      made.removeUnfinished();
      made.close();
    }
  });
}

/** Who is told that a file could not be made must not find it later. */
function syncOrTakeBack(path: string, operations: RepositoryOperations): void {
  try {
    operations.syncFolder(path);
  } catch (error) {
    try {
      removeFiles([path], operations);
    } catch {
      // Why it could not be made matters more.
    }
    throw error;
  }
}

/** Removes files, and makes it durable that they are gone. */
export function removeFiles(paths: readonly string[], operations: RepositoryOperations): void {
  for (const path of paths) attempt('remove', path, () => operations.remove(path));
  const folders = new Map(paths.map((path) => [dirname(path), path]));
  for (const path of folders.values()) attempt('sync', path, () => operations.syncFolder(path));
}

/** All bytes of a file; undefined if it does not exist. */
export function readIfThere(path: string): Buffer | undefined {
  return attempt('read', path, () => {
    let fd: number;
    try {
      ({ fd } = openFile(path));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
    try {
      return fs.readFileSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  });
}

/** A file that is open for reading, and how many bytes it had then. */
export interface OpenFile {
  readonly fd: number;
  readonly size: number;
}

/**
 * Opens a file for reading; never waits for the other end of a named pipe.
 *
 * @throws LacunaError ERR_REPOSITORY_DAMAGED for what is no file.
 */
export function openFile(path: string, flags = 0): OpenFile {
  const { O_RDONLY, O_NONBLOCK } = fs.constants;
  const fd = fs.openSync(path, O_RDONLY | O_NONBLOCK | flags);
  const state = fs.fstatSync(fd);
  if (state.isFile()) return { fd, size: state.size };
  fs.closeSync(fd);
  const message = `${path} is not a file: remove it, or bring back the file from a copy of the repository`;
  throw new LacunaError('ERR_REPOSITORY_DAMAGED', message, { device: path });
}

/** Whether there is something of this name. */
export function isThere(path: string): boolean {
  return (
    attempt('look for', path, () => fs.lstatSync(path, { throwIfNoEntry: false })) !== undefined
  );
}

/** The names in a folder, in order; none where there is no such folder. */
export function namesIn(folder: string): string[] {
  return attempt('read', folder, () => {
    try {
      return fs.readdirSync(folder).sort();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  });
}

/** The names of folders in a folder, in order; what else is in it is not ours. */
export function foldersIn(folder: string): string[] {
  return namesIn(folder).filter((name) =>
    attempt('read', join(folder, name), () =>
      fs.statSync(join(folder, name), { throwIfNoEntry: false })?.isDirectory(),
    ),
  );
}

/** Does something with a file; what the system says becomes an error that names it. */
export function attempt<T>(action: string, device: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof LacunaError || !isOfSystem(error)) throw error;
    throw fileError('ERR_REPOSITORY_FILE', { action, device }, error);
  }
}

function isOfSystem(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error;
}
