import { LacunaError } from '../../errors/index.js';
import { Bitmap } from '../bits/index.js';
import type { Cursor, Journal } from './journal.js';

/** A bitmap in a store, such as a file, whose bits are read when somebody asks for them. */
export interface StoredBitmap {
  /** 1 to 1023 bytes in UTF-8. */
  readonly name: string;
  /** Bytes that one bit stands for. */
  readonly granularity: number;
  /** Whether it records again when it is registered. */
  readonly recording: boolean;
  /** Whether it missed writes; then it has no bits, and can only be removed. */
  readonly inconsistent: boolean;
  /** Whether its store cannot be written. */
  readonly readOnly: boolean;
  /** Null where it is not known without reading the bits. */
  readonly dirtyBytes: number | null;
  /** Reads the bits; the caller owns the result. */
  load(): Bitmap | Promise<Bitmap>;
}

/** What undoes changes of a content: see {@link Content.save}. */
export interface SavedContent {
  readonly bits: Bitmap;
  readonly stored: StoredBitmap | null;
  readonly cursor: Cursor | null;
}

/**
 * The dirt of one named bitmap, which is the union of three things: `bits`, what is stored and was
 * not loaded yet, and the writes in the journal behind the cursor. They are put together when
 * somebody looks; since it is a union, new dirt may be added to what has not been loaded.
 */
export class Content {
  readonly granularity: number;
  readonly #journal: Journal;
  #bits: Bitmap;
  #stored: StoredBitmap | null;
  #cursor: Cursor | null = null;
  #loading: Promise<void> | null = null;

  constructor(journal: Journal, bits: Bitmap, stored: StoredBitmap | null = null) {
    this.granularity = bits.granularity;
    this.#journal = journal;
    this.#bits = bits;
    this.#stored = stored;
  }

  get recording(): boolean {
    return this.#cursor !== null;
  }

  /** Newest first is the cheapest order to look at many; see {@link Cursor.sequence}. */
  get sequence(): number {
    return this.#cursor?.sequence ?? -1;
  }

  /** What nobody has loaded or changed yet. */
  get untouched(): StoredBitmap | null {
    return this.#cursor === null && this.#bits.count === 0 ? this.#stored : null;
  }

  /** What is stored, where that is all there is: nobody has loaded or changed it, and nothing was recorded. */
  get unchanged(): StoredBitmap | null {
    this.catchUp();
    return this.#bits.count === 0 ? this.#stored : null;
  }

  /** Null when it is not known without loading. */
  get dirtyBytes(): number | null {
    this.catchUp();
    if (this.#stored === null) return this.#bits.dirtyBytes;
    return this.#bits.count === 0 ? this.#stored.dirtyBytes : null;
  }

  enable(): void {
    this.#cursor ??= this.#journal.join(this.granularity);
  }

  disable(): void {
    this.catchUp();
    this.#cursor?.free();
    this.#cursor = null;
  }

  /** Takes over the writes recorded since the last time. */
  catchUp(): void {
    this.#cursor?.fold(this.#bits);
  }

  /**
   * The bits as they are now. They are only to be read, and at once.
   *
   * @throws LacunaError ERR_BITMAP_UNLOADED; what loading throws; ERR_ARENA_FULL.
   */
  look(): Bitmap {
    this.catchUp();
    const stored = this.#stored;
    if (stored === null) return this.#bits;
    const loaded = this.#loading ?? stored.load();
    if (loaded instanceof Bitmap) {
      this.#absorb(loaded);
      return this.#bits;
    }
    if (this.#loading === null) this.#wait(stored, loaded as Promise<Bitmap>).catch(() => {});
    throw new LacunaError(
      'ERR_BITMAP_UNLOADED',
      `the bits of the stored bitmap '${stored.name}' are not in memory yet: ` +
        `await load('${stored.name}') first, then repeat this`,
      { retryable: true },
    );
  }

  /** Brings what is stored into memory. */
  async load(): Promise<void> {
    const stored = this.#stored;
    if (stored === null) return;
    await (this.#loading ?? this.#wait(stored, stored.load()));
  }

  /** Makes everything clean; recording goes on from here. */
  clear(): void {
    const fresh = this.#cursor === null ? null : this.#journal.join(this.granularity);
    this.#cursor?.free();
    this.#cursor = fresh;
    this.#stored = null;
    this.#bits.resetAll();
  }

  add(source: Bitmap): void {
    this.#bits.merge(source);
  }

  /** Takes over dirt and recording of `other`, which is only to be freed afterwards. */
  absorb(other: Content): void {
    this.#bits.merge(other.#bits);
    this.#cursor?.free();
    this.#cursor = other.#cursor;
    other.#cursor = null;
  }

  /** A copy of the bits for another size of the device; the caller calls `replace` or frees it. */
  resized(size: number): Bitmap {
    const copy = this.look().snapshot();
    try {
      copy.resize(size);
    } catch (error) {
      copy.free();
      throw error;
    }
    return copy;
  }

  replace(bits: Bitmap): void {
    this.#bits.free();
    this.#bits = bits;
  }

  /** What {@link restore} needs, shared copy-on-write; free it by `discard`. */
  save(): SavedContent {
    const bits = this.#bits.snapshot();
    return { bits, stored: this.#stored, cursor: this.#cursor?.clone() ?? null };
  }

  /** Goes back to what was saved. Needs no memory, so it cannot fail. */
  restore(saved: SavedContent): void {
    this.free();
    this.#bits = saved.bits;
    this.#stored = saved.stored;
    this.#cursor = saved.cursor;
  }

  /** Ends recording, whose writes nobody needs any more. */
  lose(): void {
    this.#cursor?.free();
    this.#cursor = null;
  }

  free(): void {
    this.#bits.free();
    this.#cursor?.free();
    this.#cursor = null;
  }

  #wait(stored: StoredBitmap, loaded: Bitmap | Promise<Bitmap>): Promise<void> {
    this.#loading = Promise.resolve(loaded)
      .then((bits) => {
        // Cleared or removed meanwhile: nobody wants these any more.
        if (this.#stored === stored) this.#absorb(bits);
        else bits.free();
      })
      .finally(() => {
        this.#loading = null;
      });
    return this.#loading;
  }

  #absorb(loaded: Bitmap): void {
    try {
      if (loaded.granularity !== this.granularity) throw mismatch(this.#stored, loaded, this);
      this.#bits.merge(loaded);
      this.#stored = null;
    } finally {
      loaded.free();
    }
  }
}

/** Gives up what was saved: the changes stay. */
export function freeSaved({ bits, cursor }: SavedContent): void {
  bits.free();
  cursor?.free();
}

function mismatch(stored: StoredBitmap | null, loaded: Bitmap, content: Content): LacunaError {
  return new LacunaError(
    'ERR_BITMAP_MISMATCH',
    `the stored bitmap '${stored?.name}' has granularity ${loaded.granularity}, ` +
      `but was announced with ${content.granularity}: its store is not what it says`,
  );
}
