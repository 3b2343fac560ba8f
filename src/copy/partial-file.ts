/**
 * A file that is being made beside the name it is going to have. A copy that stops half way never looks
 * like a disk, and what the name held before is not lost.
 *
 *     NAME.partial-XXXXXX   while it is made: a name and a file of its own, that nobody else may open
 *     NAME                  when it is whole
 *     NAME.partial          when it was given up after something had been written
 *
 * A copy that can be resumed leaves it where it was made, to be found again, under a name that comes from its resume
 * file.
 */
import { createHash, randomBytes } from 'node:crypto';
import type { Stats } from 'node:fs';
import { chmod, chown, lstat, readlink, realpath, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { fileError, guardImage, type RawFileOptions, syncFolder } from '../block/index.js';

export const PARTIAL = '.partial';

const OWNER_ONLY = 0o600;
const EVERYBODY = 0o666;
const GROUP = 0o070;

const MADE_SUFFIX = /^\.partial-[0-9a-f]{8}$/;

/** A file that is being made: where, and which it is. */
export interface MadeFile {
  readonly path: string;
  readonly inode: string;
}

export interface PartialFileOptions {
  /** Makes the file at a path. */
  make(path: string, how: Pick<RawFileOptions, 'exclusive' | 'mode'>): Promise<void>;
  /** The file that is copied, if it is one: a new copy is not open to more people than that. */
  source: Stats | undefined;
  /**
   * A resume file that is locked. What it begins has one name for ever, so that the file of a run that died before it
   * could note that name is found and replaced.
   */
  resume?: string | undefined;
}

export class PartialFile {
  /** Where the file is while it is made. */
  readonly path: string;
  readonly #name: string;
  readonly #source: Stats | undefined;
  #unguard = () => {};

  static async create(
    filename: string,
    { make, source, resume }: PartialFileOptions,
  ): Promise<PartialFile> {
    const old = await statIfThere(filename);
    const file = new PartialFile(await followed(filename), source, await suffixFor(resume));
    if (old) await file.#guard();
    if (resume !== undefined) await rm(file.path, { force: true });
    const mode = old ? OWNER_ONLY : ((source?.mode ?? EVERYBODY) & EVERYBODY) | OWNER_ONLY;
    try {
      await make(file.path, { exclusive: true, mode });
    } catch (error) {
      file.release();
      throw error;
    }
    try {
      if (old) await inheritAccess(file.path, old);
    } catch (error) {
      await file.abandon();
      throw error;
    }
    return file;
  }

  /**
   * The file that an earlier copy left while it was made; undefined where it is not there any more, or is another
   * one.
   */
  static async reopen(filename: string, made: MadeFile): Promise<PartialFile | undefined> {
    const name = await followed(filename);
    const suffix = made.path.startsWith(name) ? made.path.slice(name.length) : '';
    if (!MADE_SUFFIX.test(suffix)) return undefined;
    const file = new PartialFile(name, undefined, suffix);
    if (!(await isMade(file.path, made))) return undefined;
    if (await statIfThere(name)) await file.#guard();
    return file;
  }

  /** Whether the file that an earlier copy made has its name by now. */
  static async isCommitted(filename: string, made: MadeFile): Promise<boolean> {
    return isMade(await followed(filename), made);
  }

  private constructor(name: string, source: Stats | undefined, suffix: string) {
    this.#name = name;
    this.#source = source;
    this.path = `${name}${suffix}`;
  }

  /** What the file is going to be called. */
  get name(): string {
    return this.#name;
  }

  /** What {@link reopen} needs. */
  async made(): Promise<MadeFile> {
    const { ino } = await stat(this.path, { bigint: true });
    return { path: this.path, inode: `${ino}` };
  }

  /** Gives the file its name, and makes that durable if asked. */
  async commit(durable: boolean): Promise<void> {
    await rename(this.path, this.#name);
    if (durable) await syncFolder(this.#name);
  }

  /** Removes the file. Never fails: it is called when something else has. */
  async abandon(): Promise<void> {
    await rm(this.path, { force: true }).catch(() => {});
    this.release();
  }

  /** Leaves the file under a name that says what it is, and returns where it is then. Never fails. */
  async leave(): Promise<string> {
    const name = `${this.#name}${PARTIAL}`;
    const old = await statIfThere(name).catch(() => undefined);
    // The rest of an earlier copy may be what this one was made from.
    if (old && this.#source && isSameFile(old, this.#source)) return this.path;
    return await rename(this.path, name).then(
      () => name,
      () => this.path,
    );
  }

  /** Lets others use what the name held before. */
  release(): void {
    this.#unguard();
  }

  async #guard(): Promise<void> {
    this.#unguard = await guardImage(this.#name);
  }
}

async function suffixFor(resume: string | undefined): Promise<string> {
  const id =
    resume === undefined
      ? randomBytes(4)
      : createHash('sha256')
          .update(await followed(resume))
          .digest()
          .subarray(0, 4);
  return `${PARTIAL}-${id.toString('hex')}`;
}

/** Whether a path is a file that was made earlier, and not something that has come in its place. */
async function isMade(path: string, { inode }: MadeFile): Promise<boolean> {
  const found = await lstat(path, { bigint: true }).catch(() => undefined);
  return found?.isFile() === true && `${found.ino}` === inode;
}

/** What a path leads to; undefined where nothing is. */
export async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw fileError('ERR_DEVICE_OPEN', { action: 'open', device: path }, error as Error);
  }
}

/** Whether two paths led to one file, or to one block device by whatever node. */
export function isSameFile(a: Stats, b: Stats): boolean {
  if (a.isBlockDevice() && b.isBlockDevice()) return a.rdev === b.rdev;
  return a.dev === b.dev && a.ino === b.ino;
}

/** The first of some paths that leads to the same file as another path; undefined where none does. */
export async function sameFileAmong(
  path: string,
  others: Iterable<string>,
): Promise<string | undefined> {
  const own = await statIfThere(path);
  if (own === undefined) return undefined;
  for (const other of others) {
    const found = await statIfThere(other);
    if (found !== undefined && isSameFile(own, found)) return other;
  }
  return undefined;
}

/** The whole path behind symbolic links, also where the last of them leads to nothing yet. */
export async function followed(filename: string): Promise<string> {
  try {
    return await realpath(filename);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const link = await lstat(filename).catch(() => undefined);
  if (!link?.isSymbolicLink()) return wholePath(filename);
  return followed(resolve(dirname(filename), await readlink(filename)));
}

/** The path that a file will have when it is made. */
async function wholePath(filename: string): Promise<string> {
  const folder = await realpath(dirname(filename)).catch(() => dirname(resolve(filename)));
  return join(folder, basename(filename));
}

/** Whoever could not read the old file must not read the new one. */
async function inheritAccess(path: string, old: Stats): Promise<void> {
  const owned = await chown(path, old.uid, old.gid).then(
    () => true,
    () => false,
  );
  // What the old group was allowed is not for the group that the new file has instead.
  const mode = old.mode & 0o777;
  await chmod(path, owned ? mode : mode & ~GROUP);
}
