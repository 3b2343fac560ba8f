/**
 * What a backup notes of its disks, in a folder outside the repository, so that one with the same `id` can go on when its process
 * has died: for each disk which blocks its image takes in, durable before the image is begun, and the resume file of its copy.
 * The source must show the same bytes all the time, as the view of a running machine does.
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { writeBitmaps } from '../../bitmap/files/index.js';
import { type Bitmap, BitmapFile } from '../../bitmap/index.js';
import { LacunaError } from '../../errors/index.js';
import { leftoversOf, Replacement, removeLeftover } from '../../files/index.js';
import { attempt, type MachinePlaces, type RepositoryOperations } from '../layout/index.js';

/** What a disk is stored as. */
export interface NotedDisk {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** The id of the point that its image lies over; null for all of the disk. */
  readonly parent: string | null;
  /** Names of its files. */
  readonly filename: string;
  readonly leavesName: string;
}

/** What an earlier run has decided of a disk. */
export interface Noted {
  /** The blocks that the image takes in, which the caller frees; undefined for all of the disk. */
  readonly dirty: Bitmap | undefined;
}

const NAME = 'dirty';

export class BackupNotes {
  readonly #folder: string;
  readonly #places: MachinePlaces;
  readonly #id: string;
  readonly #operations: RepositoryOperations;

  /** @param id of the point that is being made */
  constructor(folder: string, places: MachinePlaces, id: string, operations: RepositoryOperations) {
    this.#folder = folder;
    this.#places = places;
    this.#id = id;
    this.#operations = operations;
  }

  /** The resume file of the copy of a disk. */
  copyOf({ name }: Pick<NotedDisk, 'name'>): string {
    return join(this.#folder, `${name}.copy`);
  }

  /** What was noted of a disk; undefined where nothing was, or of another image. */
  read(disk: NotedDisk): Noted | undefined {
    const path = this.#planOf(disk);
    if (!fs.existsSync(path)) return undefined;
    try {
      const file = BitmapFile.open(path, { readOnly: true });
      try {
        if (file.size !== disk.size || file.identity !== this.#identityOf(disk)) return undefined;
        return { dirty: disk.parent === null ? undefined : file.load(NAME) };
      } finally {
        file.close();
      }
    } catch (error) {
      // It was not written as a whole by us, so nothing is known of the image.
      if (error instanceof LacunaError && error.code.startsWith('ERR_BITMAP_')) return undefined;
      throw error;
    }
  }

  /** Notes durably what the image is going to take in; nothing of the image may be there. */
  write(disk: NotedDisk, dirty: Bitmap | undefined): void {
    const path = this.#planOf(disk);
    const operations = this.#operations;
    attempt('write', path, () => {
      const made = Replacement.create(path, { operations });
      try {
        const bitmaps: Record<string, Bitmap> = dirty === undefined ? {} : { [NAME]: dirty };
        writeBitmaps(operations, made.fd, bitmaps, {
          ...{ size: disk.size, identity: this.#identityOf(disk) },
        });
        operations.sync(made.fd);
        made.finish();
        operations.syncFolder(path);
      } finally {
        made.removeUnfinished();
        made.close();
      }
    });
  }

  /** Removes what an earlier run has of a disk: the notes first, so that no file is ever taken for what they say. */
  drop(disk: NotedDisk): void {
    this.#remove(this.#planOf(disk));
    this.#remove(this.copyOf(disk));
    for (const name of [disk.filename, disk.leavesName]) {
      const path = this.#places.file(disk.name, name);
      attempt('remove', path, () => {
        for (const leftover of leftoversOf(path, ['resumable', 'target'])) removeLeftover(leftover);
      });
      this.#remove(path);
    }
  }

  #remove(path: string): void {
    if (!fs.existsSync(path)) return;
    attempt('remove', path, () => {
      this.#operations.remove(path);
      this.#operations.syncFolder(path);
    });
  }

  #planOf({ name }: Pick<NotedDisk, 'name'>): string {
    return join(this.#folder, `${name}.plan`);
  }

  #identityOf({ name, parent, filename }: NotedDisk): string {
    const { machine } = this.#places;
    return JSON.stringify({ point: this.#id, machine, disk: name, parent, filename });
  }
}

/** Whether an error says that what an earlier run has left of a copy cannot be gone on with. */
export function isNotResumable(error: unknown): boolean {
  if (!(error instanceof LacunaError)) return false;
  return error.code === 'ERR_RESUME_MISMATCH' || error.code === 'ERR_RESUME_CORRUPT';
}
