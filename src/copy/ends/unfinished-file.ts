/**
 * The disk that a copy makes, beside the name that it is going to have; see src/files. A copy that stops half way never
 * looks like a disk, and what the name held before is not lost. What was written until then stays where it was made.
 */
import { accessSync, constants } from 'node:fs';
import { guardImage, type RawFileOptions } from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import {
  fileError,
  followed,
  type PlannedFile,
  Replacement,
  statIfThere,
  syncFolder,
} from '../../files/index.js';

export { followed, isSameFile, samePlaceAmong, statIfThere } from '../../files/index.js';

/** A file that is being made: where, and which it is; the same after a restart of the machine. */
export interface MadeFile {
  readonly path: string;
  /** The number of its inode. */
  readonly inode: string;
}

/** The file that is filled: where, and what tells it from all others while the machine runs. */
export type HowMade = Required<Pick<RawFileOptions, 'inode'>>;

export interface UnfinishedFileOptions {
  /** Fills the file at a path, which is there and empty. */
  make(path: string, how: HowMade): Promise<void>;
  /** The files that are copied: a new copy is not open to more people than each of these. */
  sources: readonly string[];
  /** Where to make it: a path of {@link UnfinishedFile.plan} that a resume file has noted. */
  planned?: string | undefined;
}

export class UnfinishedFile {
  readonly #file: Replacement;
  #unguard = () => {};

  /** A path that a resume file can note before there is a file. */
  static plan(filename: string): PlannedFile {
    return attempt(filename, () => Replacement.plan(filename, 'resumable'));
  }

  static async create(
    filename: string,
    { make, sources, planned }: UnfinishedFileOptions,
  ): Promise<UnfinishedFile> {
    const unguard = statIfThere(filename) ? await guardImage(followed(filename)) : () => {};
    let file: UnfinishedFile;
    try {
      const how = { purpose: 'target', sources, planned } as const;
      file = new UnfinishedFile(attempt(filename, () => Replacement.create(filename, how)));
    } catch (error) {
      unguard();
      throw error;
    }
    file.#unguard = unguard;
    try {
      await make(file.path, { inode: file.inode });
    } catch (error) {
      await file.removeUnfinished();
      throw error;
    }
    return file;
  }

  /**
   * The file that an earlier copy left while it was made; undefined where it is not there any more, or is another
   * one.
   */
  static async reopen(
    filename: string,
    { path, inode }: MadeFile,
  ): Promise<UnfinishedFile | undefined> {
    const unguard = statIfThere(filename) ? await guardImage(followed(filename)) : () => {};
    try {
      const made = attempt(filename, () => Replacement.reopen(filename, { path, ino: inode }));
      if (made !== undefined) {
        const file = new UnfinishedFile(made);
        file.#unguard = unguard;
        return file;
      }
    } catch (error) {
      unguard();
      throw error;
    }
    unguard();
    return undefined;
  }

  /** Whether the file that an earlier copy made has its name by now. */
  static async isFinished(filename: string, { inode }: MadeFile): Promise<boolean> {
    const found = statIfThere(followed(filename));
    return found?.isFile() === true && `${found.ino}` === inode;
  }

  private constructor(file: Replacement) {
    this.#file = file;
  }

  /** Where the file is while it is made. */
  get path(): string {
    return this.#file.path;
  }

  /** What the file is going to be called. */
  get name(): string {
    return this.#file.name;
  }

  /** Bytes of the file that is replaced; 0 where there is none. */
  get replacedBytes(): number {
    return this.#file.replacedBytes;
  }

  /** What tells it from all others: `DEVICE:INODE`. */
  get inode(): string {
    return this.#file.inode;
  }

  /** What {@link reopen} needs. */
  made(): MadeFile {
    const [, inode] = this.inode.split(':');
    return { path: this.path, inode };
  }

  /**
   * Gives the file its name, and makes that durable if asked.
   *
   * @returns warnings: what could not be kept of the file that was there.
   */
  async finish(durable: boolean): Promise<string[]> {
    let warnings: string[];
    try {
      warnings = this.#file.finish();
    } catch (error) {
      throw this.#file.isThere ? unnamed(this, error) : failure(this.name, error);
    }
    return durable ? [...warnings, ...(await syncName(this.name))] : warnings;
  }

  /** Removes the file. Never fails: it is called when something else has. */
  async removeUnfinished(): Promise<void> {
    this.#file.removeUnfinished();
    this.release();
  }

  /** Leaves the file where it is, and returns where that is; undefined where somebody has taken it away. Never fails. */
  async keepUnfinished(): Promise<string | undefined> {
    try {
      return this.#file.isThere ? this.path : undefined;
    } catch {
      return undefined;
    }
  }

  /** Lets others use what the name held before, and the file itself. */
  release(): void {
    this.#file.close();
    this.#unguard();
  }
}

/**
 * Makes the name of a file durable.
 *
 * @returns a warning where the folder cannot be synced: the file is whole all the same.
 */
export async function syncName(filename: string): Promise<string[]> {
  try {
    await syncFolder(filename);
    return [];
  } catch (error) {
    if (!(error instanceof LacunaError)) throw error;
    const what = `${filename} is whole, but its folder cannot be synced (${error.errno})`;
    return [`${what}: until the system has written it by itself, a power cut may take the name`];
  }
}

/** Errors of copies that are whole, and only have not got their names. */
const WHOLE = new WeakSet<object>();

/** Whether a copy that failed with this error is whole: what is left of it is no unfinished file. */
export function isWholeAfter(error: unknown): boolean {
  return typeof error === 'object' && error !== null && WHOLE.has(error);
}

function unnamed({ name, path }: UnfinishedFile, error: unknown): LacunaError {
  const { code, message } = error as NodeJS.ErrnoException;
  const isOurs = error instanceof LacunaError;
  const errno = isOurs ? error.errno : code;
  const why = isOurs ? message : `${name} cannot be replaced (${errno})`;
  const advice = `All was copied, and is whole in ${path}: give that file its name yourself, or copy again with --in-place (inPlace), which writes into the file that is there`;
  const found = new LacunaError(isOurs ? error.code : 'ERR_COPY_UNNAMED', `${why}. ${advice}`, {
    device: name,
    cause: error,
    ...(errno !== undefined && { errno }),
  });
  WHOLE.add(found);
  return found;
}

/** Refusals that writing into the file which is there does not meet. */
const IN_PLACE = new Set(['EACCES', 'EBUSY', 'EDQUOT', 'ENOSPC', 'EPERM']);

/** What the system says is said of the name that the file is going to have. */
function attempt<T>(filename: string, deed: () => T): T {
  try {
    return deed();
  } catch (error) {
    throw failure(filename, error);
  }
}

function failure(filename: string, error: unknown): LacunaError {
  const request = { action: 'create', device: filename, making: true };
  const known =
    error instanceof LacunaError ? error : fileError('ERR_DEVICE_OPEN', request, error as Error);
  const { code, message, device, errno = '', cause } = known;
  if (!IN_PLACE.has(errno) || !isWritable(filename)) return known;
  const advice = 'Say --in-place (inPlace) to write into the file that is there';
  return new LacunaError(code, `${message}. ${advice}`, { device, errno, cause });
}

function isWritable(filename: string): boolean {
  try {
    accessSync(filename, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
