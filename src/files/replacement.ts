/**
 * A file that is made beside the name that it is going to have, and takes it when it is whole.
 *
 *     NAME.partial-RANDOM   while it is made: a name that nobody can foresee, of a file that was not there before
 *     NAME                  when it is whole
 *
 * The name is what links lead to: they stay, and what they lead to is replaced. Until then only the owner may use the
 * file, unless it replaces none. It is locked while its maker lives; so leftovers are known from files that are still
 * being made.
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { LacunaError } from '../errors/index.js';
import { keepAccess, modeBeside, OWNER_ONLY } from './access.js';
import { describeKind } from './file-kind.js';
import { lockFile } from './lock-file.js';
import { madePath, NAME_LIMITS, type Purpose, purposeOf } from './made-name.js';
import { type FileOperations, fileOperations } from './operations.js';
import { followed, inodeOf, isSameFile } from './places.js';
import { checkReplaceable } from './replaceable.js';

/**
 * A file that is about to be made. Who notes it before it is there finds what a process left that died before it could
 * note which file that is.
 */
export interface PlannedFile {
  /** Where it is made. */
  readonly path: string;
  /** What it is going to be called. */
  readonly name: string;
}

/** The operations that change names. */
export type FileNames = Pick<FileOperations, 'create' | 'rename' | 'remove'>;

export interface ReplacementOptions {
  /** Default `side`. */
  readonly purpose?: Purpose;
  /** Files that a new file is made from: it is not open to more people than each of these. */
  readonly sources?: readonly string[];
  /** A path that {@link Replacement.plan} has chosen. */
  readonly planned?: string | undefined;
  /** For tests that cut the power, or that change files behind our back. */
  readonly operations?: FileNames;
}

/** What a name held when the making of another file for it began. */
type Old = fs.BigIntStats | undefined;

export class Replacement {
  /** The name it is going to have, behind all links. */
  readonly name: string;
  /** Where it is while it is made. */
  readonly path: string;
  /** The open file, for reading and writing. */
  readonly fd: number;
  /** Which file it is: `DEVICE:INODE`. */
  readonly inode: string;
  readonly #operations: FileNames;
  readonly #old: Old;
  #state: 'made' | 'named' | 'gone' = 'made';

  /** A path for {@link ReplacementOptions.planned}, for those who note it before there is a file. */
  static plan(filename: string, purpose: Purpose): PlannedFile {
    const name = placeFor(filename);
    return { path: madePath(name, purpose), name };
  }

  /**
   * Makes an empty file for a name.
   *
   * @throws what the system says; LacunaError ERR_DEVICE_OPEN where the name is one of something else than a regular
   * file.
   */
  static create(filename: string, options: ReplacementOptions = {}): Replacement {
    const { purpose = 'side', sources = [], planned, operations = fileOperations } = options;
    const name = placeFor(filename);
    const old = oldAt(name, filename);
    if (old !== undefined) checkReplaceable(name, Number(old.uid));
    const mode = old === undefined ? modeBeside(name, sources) : OWNER_ONLY;
    const { fd, path } = createBeside(name, { purpose, planned, mode, operations });
    lockFile(fd);
    return new Replacement(name, { fd, path, old, operations });
  }

  /**
   * A file that an earlier process has left and that is to be gone on with; undefined where it was not made for this name,
   * or where another one has its path now.
   *
   * @param made its path and the number of its inode, which are the same after a restart.
   */
  static reopen(filename: string, made: { path: string; ino: string }): Replacement | undefined {
    const name = followed(filename);
    if (purposeOf(made.path, name) === undefined) return undefined;
    const old = oldAt(name, filename);
    const fd = openMade(made.path, made.ino);
    if (fd === undefined) return undefined;
    lockFile(fd);
    return new Replacement(name, { fd, path: made.path, old, operations: fileOperations });
  }

  private constructor(
    name: string,
    { fd, path, old, operations }: { fd: number; path: string; old: Old; operations: FileNames },
  ) {
    this.name = name;
    this.path = path;
    this.fd = fd;
    this.inode = inodeOf(fs.fstatSync(fd, { bigint: true }));
    this.#old = old;
    this.#operations = operations;
  }

  /** Bytes of the file that is replaced; 0 where there is none. */
  get replacedBytes(): number {
    return Number(this.#old?.size ?? 0);
  }

  /** Whether a file is replaced. */
  get replaces(): boolean {
    return this.#old !== undefined;
  }

  /**
   * Gives the file its name. The open file stays open, and is the caller's from here on; so is it to make the name
   * durable.
   *
   * @returns warnings: what could not be kept of the file that was replaced.
   * @throws what the system says; LacunaError ERR_FILE_CHANGED where the name, or the path of this file, is of another
   * file than when this one was made. The file is where it was then.
   */
  finish(): string[] {
    // As it is now: somebody may have taken rights away meanwhile.
    const old = this.#check();
    const lost = old === undefined ? [] : keepAccess(this.fd, this.name, old);
    this.#operations.rename(this.path, this.name);
    this.#state = 'named';
    return lost.map((what) => `${this.name} was replaced, and could not keep ${what}`);
  }

  /** What is replaced, as it is now. */
  #check(): Old {
    if (!this.#isOurs()) {
      const message = `${this.path} was removed or replaced by somebody else while it was made: find out by whom, then try again`;
      throw new LacunaError('ERR_FILE_CHANGED', message, { device: this.path });
    }
    const now = lstat(this.name);
    const old = this.#old;
    if (now === undefined && old === undefined) return undefined;
    if (now !== undefined && old !== undefined && now.isFile() && isSameFile(now, old)) return now;
    const what = now === undefined ? 'was removed' : 'was made or replaced';
    const message = `${this.name} ${what} by somebody else meanwhile, and was left alone: find out by whom, then try again`;
    throw new LacunaError('ERR_FILE_CHANGED', message, { device: this.name });
  }

  /** Closes the file, and removes it if it has no name yet and is still the one that was made. Never fails. */
  removeUnfinished(): void {
    if (this.#state !== 'made') return;
    try {
      if (this.#isOurs()) this.#operations.remove(this.path);
    } catch {
      // Whoever gives a file up has met a failure that matters more.
    }
    this.close();
  }

  /** Closes the file, where it is then. Never fails. */
  close(): void {
    if (this.#state === 'gone') return;
    this.#state = 'gone';
    try {
      fs.closeSync(this.fd);
    } catch {
      // As above.
    }
  }

  /** Whether the file is still where it was made. */
  get isThere(): boolean {
    return this.#isOurs();
  }

  #isOurs(): boolean {
    const now = lstat(this.path);
    return now?.isFile() === true && inodeOf(now) === this.inode;
  }
}

/** Where a file is made or replaced; not in a place that somebody has misspelt. */
function placeFor(filename: string): string {
  if (filename.endsWith('/')) {
    const message = `${filename} names a folder: name the file to be made in it, such as ${join(filename, 'NAME')}`;
    throw new LacunaError('ERR_DEVICE_OPEN', message, { device: filename, errno: 'EISDIR' });
  }
  const name = followed(filename);
  if (!name.startsWith('/dev/') || name.startsWith('/dev/shm/')) return name;
  if (lstat(name) !== undefined) return name;
  const message = `${filename} is not there, and files are not made in /dev: check the name of the device`;
  throw new LacunaError('ERR_DEVICE_OPEN', message, { device: filename, errno: 'ENOENT' });
}

function lstat(path: string): fs.BigIntStats | undefined {
  return fs.lstatSync(path, { bigint: true, throwIfNoEntry: false });
}

function oldAt(name: string, filename: string): Old {
  const old = lstat(name);
  if (old === undefined || old.isFile()) return old;
  const errno = old.isDirectory() ? 'EISDIR' : 'EEXIST';
  const message = `${filename} is ${describeKind(old)}, which cannot be replaced by a file: name another`;
  throw new LacunaError('ERR_DEVICE_OPEN', message, { device: filename, errno });
}

interface Creating {
  purpose: Purpose;
  planned: string | undefined;
  mode: number;
  operations: FileNames;
}

function createBeside(name: string, { purpose, planned, mode, operations }: Creating) {
  for (const limit of NAME_LIMITS) {
    const path = planned ?? madePath(name, purpose, limit);
    try {
      return { path, fd: operations.create(path, mode) };
    } catch (error) {
      const isLast = planned !== undefined || limit === NAME_LIMITS.at(-1);
      if (isLast || (error as NodeJS.ErrnoException).code !== 'ENAMETOOLONG') throw error;
    }
  }
  throw new Error('there is at least one limit');
}

function openMade(path: string, ino: string): number | undefined {
  const { O_RDWR, O_NOFOLLOW, O_NONBLOCK } = fs.constants;
  if (!lstat(path)?.isFile()) return undefined;
  const fd = fs.openSync(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
  if (`${fs.fstatSync(fd, { bigint: true }).ino}` === ino) return fd;
  fs.closeSync(fd);
  return undefined;
}
