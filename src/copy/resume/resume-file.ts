/**
 * What remains of a copy, kept in a small file, so that a later run can go on.
 *
 * It is a file of bitmaps (see bitmap/file-header.ts) with two of them, `data` and `zero`, and with the rest of what
 * is known as JSON in the place of the disk's identity. It is only ever replaced as a whole: written beside itself,
 * synced, renamed, and the folder synced. So after a crash it is one moment of the copy or the next, and what is
 * neither has been damaged and is refused.
 *
 * Whoever uses it holds its lock. An empty file is one that was not begun: it stands for the lock alone.
 */
import fs from 'node:fs';
import { promisify } from 'node:util';
import { writeBitmaps } from '../../bitmap/files/index.js';
import { type Bitmap, BitmapFile } from '../../bitmap/index.js';
import { LacunaError } from '../../errors/index.js';
import {
  type FileOperations,
  fileOperations,
  followed,
  inodeOf,
  lockFile,
  type PlannedFile,
  Replacement,
  sweep,
  syncFolder,
} from '../../files/index.js';
import { describeRefusal } from '../../util/index.js';
import type { Arena } from '../../wasm/index.js';
import type { CopyState } from '../ends/index.js';

/** A moment of a copy. */
export interface CopyMoment {
  readonly state: CopyState;
  /** What has to be moved. */
  readonly data: Bitmap;
  /** What has to be zeroed. */
  readonly zero: Bitmap;
}

/** The steps that change the file, so that a test can cut the power between any two of them. */
export interface ResumeFileOperations extends Omit<FileOperations, 'sync' | 'syncFolder'> {
  sync(fd: number): Promise<void> | void;
  syncFolder(path: string): Promise<void> | void;
}

const OPERATIONS: ResumeFileOperations = {
  ...fileOperations,
  // What waits for the medium must not keep this thread from copying.
  sync: promisify(fs.fsync),
  syncFolder,
};

const KIND = 'lacuna-resume';
/** To be raised with what binds a copy: notes that bind less must not be gone on from. */
const VERSION = 2;

export class ResumeFile {
  readonly path: string;
  readonly #operations: ResumeFileOperations;
  #fd: number;
  #begun: boolean;
  /** Whether the file that is there was made by us, and is not an empty one of the caller's. */
  #isMade: boolean;
  #planned: PlannedFile | undefined;
  #closed = false;

  /**
   * Opens the file, or makes an empty one, and locks it.
   *
   * @throws LacunaError ERR_RESUME_BUSY, ERR_RESUME_CORRUPT when it is no regular file, ERR_RESUME_FILE
   */
  static async open(
    filename: string,
    operations: ResumeFileOperations = OPERATIONS,
  ): Promise<ResumeFile> {
    try {
      const path = followed(filename);
      for (;;) {
        const file = lockNamed(path);
        if (file === undefined) continue;
        sweep(path);
        return new ResumeFile(path, file, operations);
      }
    } catch (error) {
      throw fileFailure('open', filename, error);
    }
  }

  private constructor(
    path: string,
    { fd, size, isMade }: LockedFile,
    operations: ResumeFileOperations,
  ) {
    this.path = path;
    this.#fd = fd;
    this.#begun = size > 0;
    this.#isMade = isMade;
    this.#operations = operations;
  }

  /**
   * The moment that the file holds, whose bitmaps the caller owns; undefined when it was not begun.
   *
   * @throws LacunaError ERR_RESUME_CORRUPT; ERR_RESUME_MISMATCH when its source has another size;
   * ERR_RESUME_FILE; ERR_ARENA_FULL
   */
  read({ size, arena }: { size: number; arena: Arena }): CopyMoment | undefined {
    if (!this.#begun) return undefined;
    try {
      const bitmaps = BitmapFile.open(this.path, { arena, readOnly: true });
      try {
        this.#planned = decodePlanned(bitmaps.identity);
        if (this.#planned !== undefined) {
          this.#begun = false;
          this.#isMade = true;
          return undefined;
        }
        const state = decodeState(this.path, bitmaps.identity);
        if (state === undefined) throw damaged(this.path);
        if (bitmaps.size !== size) throw otherSize(this.path);
        return { state, data: bitmaps.load('data'), zero: bitmaps.load('zero') };
      } finally {
        bitmaps.close();
      }
    } catch (error) {
      throw readFailure(this.path, error);
    }
  }

  /**
   * Replaces what the file holds. Durable when this resolves; after a failure it holds what it held.
   *
   * @throws LacunaError ERR_RESUME_FILE
   */
  async write({ state, data, zero }: CopyMoment): Promise<void> {
    await this.#replace({ data, zero }, { size: data.size, identity: encode(state) });
    this.#begun = true;
  }

  /** What an earlier run was about to make when it died; known when the file was read. */
  get planned(): PlannedFile | undefined {
    return this.#planned;
  }

  /**
   * Notes what is about to be made, durably. The copy has not begun by that: when the file is closed, it is removed.
   *
   * @throws LacunaError ERR_RESUME_FILE
   */
  async plan({ path, name }: PlannedFile): Promise<void> {
    const identity = JSON.stringify({ [KIND]: VERSION, planned: { path, name } });
    await this.#replace({}, { size: 0, identity });
  }

  async #replace(
    bitmaps: Readonly<Record<string, Bitmap>>,
    disk: { size: number; identity: string },
  ): Promise<void> {
    const operations = this.#operations;
    let fresh: Replacement | undefined;
    try {
      this.#refuseAnother();
      // Its lock is ours before it can be found under the name.
      fresh = Replacement.create(this.path, { operations });
      writeBitmaps(operations, fresh.fd, bitmaps, disk);
      await operations.sync(fresh.fd);
      fresh.finish();
      fs.closeSync(this.#fd);
      this.#fd = fresh.fd;
      this.#isMade = true;
      await operations.syncFolder(this.path);
    } catch (error) {
      fresh?.removeUnfinished();
      throw fileFailure('write', this.path, error);
    }
  }

  /**
   * Removes the file: the copy is complete.
   *
   * @throws LacunaError ERR_RESUME_FILE
   */
  async remove(): Promise<void> {
    try {
      // What somebody has put in its place stays there.
      if (this.#isNamed()) this.#operations.remove(this.path);
      this.#begun = true;
      await this.#operations.syncFolder(this.path);
    } catch (error) {
      throw fileFailure('remove', this.path, error);
    }
  }

  /** Gives the lock back. A file that was not begun is not left behind. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (!this.#begun && this.#isMade && this.#isNamed()) fs.rmSync(this.path, { force: true });
    fs.closeSync(this.#fd);
  }

  /** Whether the path leads to the file whose lock is held. */
  #isNamed(): boolean {
    const named = fs.statSync(this.path, { bigint: true, throwIfNoEntry: false });
    return (
      named !== undefined && inodeOf(named) === inodeOf(fs.fstatSync(this.#fd, { bigint: true }))
    );
  }

  /** Only what was opened here is replaced or removed. */
  #refuseAnother(): void {
    if (this.#isNamed()) return;
    const message = `The resume file ${this.path} was replaced or removed by somebody else while it was used, and was left alone: find out by whom`;
    throw new LacunaError('ERR_FILE_CHANGED', message, { device: this.path });
  }
}

interface LockedFile {
  fd: number;
  size: number;
  /** Whether it was not there before. */
  isMade: boolean;
}

/** Opens and locks what the path names; undefined when it was replaced or removed meanwhile. */
function lockNamed(path: string): LockedFile | undefined {
  const opened = openOrMake(path);
  if (opened === undefined) return undefined;
  const { fd, isMade } = opened;
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) throw noFile(path);
    if (!lockFile(fd)) throw busy(path);
    const named = fs.statSync(path, { throwIfNoEntry: false });
    if (named?.ino === stat.ino) return { fd, size: fs.fstatSync(fd).size, isMade };
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
  fs.closeSync(fd);
  return undefined;
}

/** Undefined where it was removed between one attempt and the other. */
function openOrMake(path: string): { fd: number; isMade: boolean } | undefined {
  const { O_RDWR, O_CREAT, O_EXCL, O_NONBLOCK } = fs.constants;
  try {
    return { fd: fs.openSync(path, O_RDWR | O_CREAT | O_EXCL, 0o666), isMade: true };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  // A FIFO would otherwise wait for somebody at its other end.
  try {
    return { fd: fs.openSync(path, O_RDWR | O_NONBLOCK), isMade: false };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return undefined;
  }
}

function encode(state: CopyState): string {
  return JSON.stringify({ [KIND]: VERSION, ...state });
}

/** Undefined for what is something else. */
function decodePlanned(text: string): PlannedFile | undefined {
  try {
    const { [KIND]: version, planned } = JSON.parse(text);
    if (version !== VERSION || !isTexts(planned)) return undefined;
    const { path, name } = planned;
    return path === undefined || name === undefined ? undefined : { path, name };
  } catch {
    return undefined;
  }
}

/** Undefined for what is no state; whatever the text is, the result is sound. */
function decodeState(filename: string, text: string): CopyState | undefined {
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(value) || !Number.isSafeInteger(value[KIND])) return undefined;
  if (value[KIND] !== VERSION) throw ofOtherVersion(filename);
  const { binding, made, targetIsZero, plannedBytes, totalBytes } = value;
  if (!isTexts(binding) || typeof targetIsZero !== 'boolean') return undefined;
  if (!isBytes(plannedBytes) || !isBytes(totalBytes)) return undefined;
  if (made === undefined) return { binding, targetIsZero, plannedBytes, totalBytes };
  if (!isTexts(made) || made.path === undefined || made.inode === undefined) return undefined;
  const { path, inode } = made;
  return { binding, made: { path, inode }, targetIsZero, plannedBytes, totalBytes };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function isTexts(value: unknown): value is Record<string, string> {
  return isObject(value) && Object.values(value).every((text) => typeof text === 'string');
}

function isBytes(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function readFailure(path: string, error: unknown): unknown {
  if (!(error instanceof LacunaError)) return error;
  if (error.code === 'ERR_BITMAP_CORRUPT' || error.code === 'ERR_BITMAP_UNKNOWN') {
    return damaged(path, error);
  }
  if (error.code === 'ERR_BITMAP_FILE') return fileFailure('read', path, error);
  return error;
}

function otherSize(path: string): LacunaError {
  const message = `Cannot resume from ${path}: the source had another size when the copy began; name that source, or delete ${path} to begin again`;
  return new LacunaError('ERR_RESUME_MISMATCH', message, { device: path });
}

function damaged(path: string, cause?: unknown): LacunaError {
  const message = `Cannot resume from ${path}: it is damaged, or not a resume file: delete it to begin again if it is one, else name another`;
  return new LacunaError('ERR_RESUME_CORRUPT', message, { device: path, cause });
}

function ofOtherVersion(path: string): LacunaError {
  const message = `Cannot resume from ${path}: another version of lacuna wrote it, and it does not hold all that this one checks: finish the copy with that version, or delete ${path} to begin again`;
  return new LacunaError('ERR_RESUME_CORRUPT', message, { device: path });
}

/** A folder or a device must never be advised to be deleted. */
function noFile(path: string): LacunaError {
  const message = `${path} is not a regular file, and so not a resume file: name another`;
  return new LacunaError('ERR_RESUME_CORRUPT', message, { device: path });
}

function busy(path: string): LacunaError {
  const message = `${path} is used by another copy: wait for that, or name another resume file`;
  return new LacunaError('ERR_RESUME_BUSY', message, { device: path });
}

function fileFailure(action: string, path: string, error: unknown): unknown {
  const { code, errno } = error as NodeJS.ErrnoException & { errno?: unknown };
  const isOurs = error instanceof LacunaError;
  if (isOurs && !['ERR_BITMAP_FILE', 'ERR_DEVICE_IO'].includes(error.code)) return error;
  const name = isOurs && typeof errno === 'string' ? errno : code;
  if (name === undefined) return error;
  const what = `Cannot ${action} the resume file ${path}`;
  return new LacunaError(
    'ERR_RESUME_FILE',
    describeRefusal(what, name, { making: action === 'open' }),
    { device: path, errno: name, cause: error },
  );
}
