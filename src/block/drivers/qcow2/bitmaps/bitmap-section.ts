import { Arena, Bitmap, type StoredBitmap } from '../../../../bitmap/index.js';
import { LacunaError } from '../../../../errors/index.js';
import {
  BitmapCluster,
  type BitmapEntry,
  type BitmapOwner,
  cutShort,
  parseBitmapTable,
} from '../../../../qcow2/index.js';
import { Turns } from '../../../../util/index.js';

/** The file of an image, as far as its bitmaps are read. */
interface Reader {
  /** Bytes of the file, or what it had when it was opened. */
  readonly size: number;
  read(offset: number, target: Uint8Array): Promise<void>;
}

/** What all bitmaps of an image share. */
export interface BitmapHome {
  readonly owner: BitmapOwner;
  readonly file: Reader;
  readonly readOnly: boolean;
  /** Where bits are loaded to; default the arena of this thread. */
  readonly arena?: Arena;
}

/** A bitmap in an image, whose bits are read when somebody asks for them. */
export class BitmapSection implements StoredBitmap {
  readonly entry: BitmapEntry;
  /** Not known: the image only keeps the bits. */
  readonly dirtyBytes = null;
  readonly #home: BitmapHome;

  constructor(entry: BitmapEntry, home: BitmapHome) {
    this.entry = entry;
    this.#home = home;
  }

  get name(): string {
    return this.entry.name;
  }

  get granularity(): number {
    return 2 ** this.entry.granularityBits;
  }

  get recording(): boolean {
    return this.entry.auto && !this.inconsistent;
  }

  get inconsistent(): boolean {
    return this.entry.inUse;
  }

  get readOnly(): boolean {
    return this.#home.readOnly;
  }

  /** Bytes of the disk whose bits one cluster holds. */
  get #span(): number {
    return this.#home.owner.geometry.clusterSize * 8 * this.granularity;
  }

  /**
   * Where the clusters of bits lie, and which are all alike.
   *
   * @throws LacunaError ERR_QCOW2_CORRUPT, ERR_DEVICE_IO
   */
  async readTable(): Promise<Float64Array> {
    const { tableOffset, tableEntries } = this.entry;
    const bytes = new Uint8Array(tableEntries * 8);
    await readInside(this.#home, tableOffset, bytes, `the table of bitmap "${this.name}"`);
    return parseBitmapTable(bytes, this.entry, this.#home.owner);
  }

  /**
   * Reads the bits; the caller owns the result.
   *
   * @throws LacunaError ERR_BITMAP_INCONSISTENT, ERR_BITMAP_CORRUPT, ERR_QCOW2_CORRUPT, ERR_DEVICE_IO, ERR_ARENA_FULL
   */
  async load(): Promise<Bitmap> {
    const { owner, arena = Arena.default } = this.#home;
    if (this.inconsistent) throw inconsistent(this.name, owner.image);
    const table = await this.readTable();
    const bitmap = new Bitmap({ size: owner.size, granularity: this.granularity, arena });
    try {
      await this.#fill(bitmap, table);
      return bitmap;
    } catch (error) {
      bitmap.free();
      throw error;
    }
  }

  async #fill(bitmap: Bitmap, table: Float64Array): Promise<void> {
    const turns = new Turns();
    const buffer = new Uint8Array(this.#home.owner.geometry.clusterSize);
    for (let i = 0; i < table.length; i++) {
      if (table[i] === BitmapCluster.allClean) continue;
      await turns.next();
      const start = i * this.#span;
      const length = Math.min(this.#span, bitmap.size - start);
      if (table[i] === BitmapCluster.allDirty) {
        bitmap.set(start, length);
        continue;
      }
      const words = Math.ceil(Math.ceil(length / this.granularity) / 64);
      const bytes = buffer.subarray(0, words * 8);
      await readInside(this.#home, table[i], bytes, `bits of bitmap "${this.name}"`);
      bitmap.deserialize(bytes, start);
    }
  }
}

/** Reads what must be there: bits behind the end of the file would be taken for clean ones. */
export async function readInside(
  { file, owner }: BitmapHome,
  offset: number,
  bytes: Uint8Array,
  what: string,
): Promise<void> {
  if (offset + bytes.length > file.size) {
    throw cutShort(owner.image, what, { offset, end: file.size });
  }
  if (bytes.length > 0) await file.read(offset, bytes);
}

function inconsistent(name: string, image: string): LacunaError {
  const message =
    `bitmap '${name}' of ${image} is inconsistent: the program that recorded into it did not store it, and it may lack ` +
    'writes. Remove it and make a full copy';
  return new LacunaError('ERR_BITMAP_INCONSISTENT', message, { device: image });
}
