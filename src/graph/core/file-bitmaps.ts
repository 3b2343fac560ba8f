import { statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { BitmapFile, DirtyBitmaps } from '../../bitmap/index.js';
import type { Driver, KeptBitmaps } from '../../block/index.js';

/** Two changes within a tick of the clock of a file system may have the same time. */
const TICK_MS = 20;

/** A file of bitmaps, and how it is used. */
export interface FileBitmapsOptions {
  /** Where the file is, or will be. */
  readonly path: string;
  /** Whether the disk is written. */
  readonly writable: boolean;
  /** The caller knows that nobody has changed the disk since the file was stored. */
  readonly isTrusted: boolean;
}

/**
 * The bitmaps of a disk whose format has no place for them, in a file beside it. When it is closed the file says how the disk was then:
 * its inode, size and time of change. Where the disk is not like that when it is opened again, or nobody can tell, somebody may have
 * written it meanwhile, and all bitmaps are inconsistent.
 */
export class FileBitmaps implements KeptBitmaps {
  readonly bitmaps: DirtyBitmaps;
  /** What records is marked at once, where it is recorded. */
  readonly mustMark = false;
  readonly canAdd: boolean;
  readonly #file: BitmapFile;
  readonly #disk: string | undefined;
  readonly #writable: boolean;

  /** @throws LacunaError ERR_BITMAP_CORRUPT, ERR_BITMAP_MISMATCH, ERR_BITMAP_FILE */
  constructor({ path: disk, size }: Driver, { path, writable, isTrusted }: FileBitmapsOptions) {
    const file = BitmapFile.open(path, { size, readOnly: !writable });
    this.bitmaps = new DirtyBitmaps({ size });
    this.#file = file;
    this.#disk = disk;
    this.#writable = writable;
    this.canAdd = writable;
    const state = stateOf(disk);
    const isSame = state !== undefined && file.identity === state.text;
    try {
      if (isSame || isTrusted) file.restore(this.bitmaps);
      else file.restoreInconsistent(this.bitmaps);
    } catch (error) {
      this.bitmaps.free();
      file.close();
      throw error;
    }
  }

  async mark(): Promise<void> {}

  async store(): Promise<void> {
    this.#file.store(this.bitmaps);
  }

  /** Stores the bitmaps, and binds them to the disk as it is now. It must be closed. */
  async close(): Promise<void> {
    try {
      if (!this.#writable) return this.#file.close();
      const state = stateOf(this.#disk);
      if (state !== undefined) {
        const left = TICK_MS - (Date.now() - state.changedMs);
        if (left > 0) await sleep(Math.min(left, TICK_MS));
      }
      this.#file.close(this.bitmaps, stateOf(this.#disk)?.text ?? '');
    } finally {
      this.bitmaps.free();
    }
  }

  /** Gives the file up as it is: what has recorded stays marked. */
  giveUp(): void {
    this.#file.close();
    this.bitmaps.free();
  }
}

/** What changes whenever a regular file does; undefined for what has nothing like it, such as a block device. */
function stateOf(path: string | undefined): { text: string; changedMs: number } | undefined {
  const stat =
    path === undefined ? undefined : statSync(path, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined || !stat.isFile()) return undefined;
  const { ino, size, ctimeNs } = stat;
  return { text: `file ${ino} ${size} ${ctimeNs}`, changedMs: Number(ctimeNs / 1_000_000n) };
}
