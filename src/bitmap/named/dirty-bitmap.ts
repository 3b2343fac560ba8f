import type { Range } from '../../extent/index.js';
import type { Bitmap } from '../bits/index.js';
import type { Entry } from './entry.js';
import { inconsistent, wasRemoved } from './rules.js';

/** What is known of a bitmap without its bits. */
export interface DirtyBitmapInfo {
  /** What it is called; unique on its device. */
  readonly name: string;
  /** Bytes that one bit stands for. */
  readonly granularity: number;
  /** Null when the bits are stored, not loaded yet, and have been added to. */
  readonly dirtyBytes: number | null;
  /** Whether writes are recorded, by the bitmap itself or by its successor. */
  readonly recording: boolean;
  /** Whether somebody uses it, or it has a successor: it neither changes nor goes then. */
  readonly busy: boolean;
  /** Whether it is to be stored with the disk. */
  readonly persistent: boolean;
  /** Whether it missed writes; it can only be removed then. */
  readonly inconsistent: boolean;
  /** Whether it must not change, because its store cannot be written. */
  readonly readOnly: boolean;
}

/**
 * A look at one of a device's dirty bitmaps, always as it is now: each answer includes the writes
 * recorded before. Its bits cannot be changed from here, only by the commands of DirtyBitmaps; take
 * a {@link snapshot} for more than the questions below.
 *
 * All that asks for bits throws LacunaError ERR_BITMAP_UNKNOWN when the bitmap was removed,
 * ERR_BITMAP_INCONSISTENT when it missed writes, ERR_BITMAP_UNLOADED when it is stored and must be
 * waited for, and what its store throws when loading fails.
 */
export class DirtyBitmap {
  readonly #entry: Entry;

  /** @internal */
  constructor(entry: Entry) {
    this.#entry = entry;
  }

  /** What it is called; unique on its device. */
  get name(): string {
    return this.#entry.name;
  }

  /** Bytes that one bit stands for. */
  get granularity(): number {
    return this.#entry.granularity;
  }

  /** Bytes of the disk. */
  get size(): number {
    return this.#bits.size;
  }

  /** Names, states and numbers, without loading anything. */
  get info(): DirtyBitmapInfo {
    const { name, granularity, recording, busy, persistent, readOnly } = this.#entry;
    const dirtyBytes = this.#entry.inconsistent ? 0 : this.#entry.content.dirtyBytes;
    const states = { recording, busy, persistent, inconsistent: this.#entry.inconsistent };
    return { name, granularity, dirtyBytes, ...states, readOnly };
  }

  /** Dirty granules. */
  get count(): number {
    return this.#bits.count;
  }

  /** Dirty bytes; a partial last granule counts with what there is of it. */
  get dirtyBytes(): number {
    return this.#bits.dirtyBytes;
  }

  /** See {@link Bitmap.get}. */
  get(offset: number): boolean {
    return this.#bits.get(offset);
  }

  /** See {@link Bitmap.status}. */
  status(offset: number, length: number): { dirty: boolean; length: number } {
    return this.#bits.status(offset, length);
  }

  /** See {@link Bitmap.countIn}. */
  countIn(offset: number, length: number): number {
    return this.#bits.countIn(offset, length);
  }

  /** See {@link Bitmap.readRanges}. */
  readRanges(from: number, end: number, out: Float64Array): number {
    return this.#bits.readRanges(from, end, out);
  }

  /** The dirty runs as they are when the iteration begins, whatever is written during it. */
  *ranges(from = 0, end: number = Number.MAX_SAFE_INTEGER): IterableIterator<Range> {
    const frozen = this.snapshot();
    try {
      yield* frozen.ranges(from, end);
    } finally {
      frozen.free();
    }
  }

  /** See {@link Bitmap.serialize}. */
  serialize(offset = 0, length: number = this.size - offset): Uint8Array {
    return this.#bits.serialize(offset, length);
  }

  /** See {@link Bitmap.digest}. */
  digest(): string {
    return this.#bits.digest();
  }

  /** A bitmap of the caller's own with the content of now, shared copy-on-write. */
  snapshot(): Bitmap {
    return this.#bits.snapshot();
  }

  get #bits(): Bitmap {
    const { content, removed, name } = this.#entry;
    if (removed) throw wasRemoved(name);
    if (this.#entry.inconsistent) throw inconsistent(name, 'read');
    return content.look();
  }
}
