import { LacunaError } from '../errors/index.js';
import { type Arena, arenaFull } from './arena.js';
import type { Kernels, Operations, Outcomes, Pointer } from './kernels.js';

/** A bitmap in an arena, as a plain value that can be posted to another thread. */
export type BitmapHandle = number & { readonly __bitmap: unique symbol };

export type Operation = keyof Operations;

/**
 * Frees what was forgotten: a backstop, since the memory of an arena is none of the collector's
 * business.
 */
const forgotten = new FinalizationRegistry<{ kernels: Kernels; header: Pointer }>(
  ({ kernels, header }) => kernels.bitmapFree(header),
);

/**
 * The kernels of one bitmap, with pointers and outcomes turned into values and errors. Arguments
 * must be whole numbers from 0 to 2^53 - 1; everything that depends on the bitmap's size is checked
 * here.
 */
export class Bits {
  readonly arena: Arena;
  readonly #kernels: Kernels;
  readonly #outcomes: Outcomes;
  readonly #scratch: Pointer;
  readonly #numbers: Float64Array;
  #header: Pointer | 0;

  private constructor(arena: Arena, header: Pointer) {
    const { kernels, layout } = arena.instance;
    this.arena = arena;
    this.#kernels = kernels;
    this.#outcomes = layout.outcomes;
    this.#scratch = arena.scratch.addressOf(0, arena.scratch.length);
    this.#numbers = arena.numbers;
    this.#header = header;
    forgotten.register(this, { kernels, header }, this);
  }

  static create(arena: Arena, size: number, shift: number): Bits {
    return Bits.#adopt(arena, arena.instance.kernels.bitmapCreate(size, shift));
  }

  static attach(arena: Arena, handle: BitmapHandle): Bits {
    const header = handle as unknown as Pointer;
    if (!isAddress(header) || arena.instance.kernels.bitmapAttach(header) === 0) {
      throw new TypeError(`${String(handle)} is no bitmap of this arena`);
    }
    return new Bits(arena, header);
  }

  static #adopt(arena: Arena, header: Pointer): Bits {
    const address = (header >>> 0) as Pointer;
    if (address === 0) throw arenaFull(arena.shared.maximumBytes);
    return new Bits(arena, address);
  }

  free(): void {
    if (this.#header === 0) return;
    forgotten.unregister(this);
    this.#kernels.bitmapFree(this.#header);
    this.#header = 0;
  }

  get handle(): BitmapHandle {
    return this.#at as unknown as BitmapHandle;
  }

  get size(): number {
    return this.#kernels.bitmapSize(this.#at);
  }

  get shift(): number {
    return this.#kernels.bitmapShift(this.#at);
  }

  get count(): number {
    return this.#kernels.bitmapCount(this.#at);
  }

  get dirtyBytes(): number {
    return this.#kernels.bitmapDirtyBytes(this.#at);
  }

  set(offset: number, length: number): void {
    const outcome = this.#kernels.bitmapSet(this.#at, offset, length);
    if (outcome < 0) this.#fail(outcome, offset, length);
  }

  reset(offset: number, length: number): void {
    const outcome = this.#kernels.bitmapReset(this.#at, offset, length);
    if (outcome < 0) this.#fail(outcome, offset, length);
  }

  fill(dirty: boolean): void {
    const outcome = this.#kernels.bitmapFill(this.#at, dirty);
    if (outcome < 0) this.#fail(outcome);
  }

  /** Sets the granule of each offset, all or none. */
  setMany(offsets: ArrayLike<number>): void {
    const { size } = this;
    for (let i = 0; i < offsets.length; i++) {
      if (offsets[i] >= size) this.#fail(this.#outcomes.outOfRange, offsets[i], 1);
    }
    this.#allOrNone(offsets.length, (bits) => bits.#setOffsets(offsets));
  }

  /** As setMany, with pairs of offset and length. */
  setRanges(pairs: ArrayLike<number>): void {
    const { size } = this;
    for (let i = 0; i < pairs.length; i += 2) {
      const [offset, length] = [pairs[i], pairs[i + 1]];
      if (offset + length > size) this.#fail(this.#outcomes.outOfRange, offset, length);
    }
    this.#allOrNone(pairs.length / 2, (bits) => bits.#setPairs(pairs));
  }

  get(offset: number): boolean {
    const outcome = this.#kernels.bitmapGet(this.#at, offset);
    if (outcome < 0) this.#fail(outcome, offset, 1);
    return outcome === 1;
  }

  /** First byte from `offset` up to `end` in the state `dirty`; -1 when there is none. */
  find(offset: number, end: number, dirty: boolean): number {
    return this.#kernels.bitmapFind(this.#at, offset, end, dirty);
  }

  area(offset: number, end: number, maxLength: number): { offset: number; length: number } | null {
    const { bitmapArea } = this.#kernels;
    if (bitmapArea(this.#at, offset, end, maxLength, this.#pairs) === 0) return null;
    return { offset: this.#numbers[0], length: this.#numbers[1] };
  }

  status(offset: number, length: number): { dirty: boolean; length: number } {
    const outcome = this.#kernels.bitmapStatus(this.#at, offset, length, this.#pairs);
    if (outcome < 0) this.#fail(outcome, offset, length);
    return { dirty: outcome === 1, length: this.#numbers[0] };
  }

  /** Fills `out` with pairs of offset and length; returns their number. */
  runs(from: number, end: number, out: Float64Array): number {
    const pairs = out.length >>> 1;
    const room = this.#numbers.length >>> 1;
    let done = 0;
    let next = from;
    while (done < pairs) {
      const wanted = Math.min(room, pairs - done);
      const count = this.#kernels.bitmapRuns(this.#at, next, end, this.#scratch, wanted);
      out.set(this.#numbers.subarray(0, count * 2), done * 2);
      done += count;
      if (count < wanted) break;
      next = out[done * 2 - 2] + out[done * 2 - 1];
    }
    return done;
  }

  countIn(offset: number, length: number): number {
    const bytes = this.#kernels.bitmapCountIn(this.#at, offset, length);
    if (bytes < 0) this.#fail(bytes, offset, length);
    return bytes;
  }

  /** Offset of the dirty granule with `rank` dirty ones before it; -1 when there are too few. */
  select(rank: number): number {
    return this.#kernels.bitmapSelect(this.#at, rank);
  }

  combine(other: Bits, operation: Operation): void {
    const code = this.arena.instance.layout.operations[operation];
    const outcome = this.#kernels.bitmapCombine(this.#at, other.#at, code);
    if (outcome < 0) this.#fail(outcome, other.size);
  }

  /** Takes the granules `from` up to `to` from `other`, which is clean everywhere else. */
  replace(other: Bits, from: number, to: number): void {
    const outcome = this.#kernels.bitmapReplace(this.#at, other.#at, from, to);
    if (outcome < 0) this.#fail(outcome, other.size);
  }

  snapshot(): Bits {
    return Bits.#adopt(this.arena, this.#kernels.bitmapSnapshot(this.#at));
  }

  resize(size: number): void {
    const outcome = this.#kernels.bitmapResize(this.#at, size);
    if (outcome < 0) this.#fail(outcome);
  }

  /** Takes the lowest dirty runs; see Bitmap.claim. */
  claim(from: number, end: number, out: Float64Array, maxBytes: number): number {
    const pairs = out.length >>> 1;
    if (pairs <= this.#numbers.length >>> 1) {
      const count = this.#claimInto(this.#scratch, from, end, pairs, maxBytes);
      out.set(this.#numbers.subarray(0, count * 2));
      return count;
    }
    const { walkBytes } = this.arena.instance.layout;
    const block = this.arena.allocate(walkBytes + pairs * 16);
    try {
      const walk = block.addressOf(0, block.length);
      const count = this.#claimInto(walk, from, end, pairs, maxBytes);
      const { buffer, byteOffset } = block.bytes;
      out.set(new Float64Array(buffer, byteOffset + walkBytes, count * 2));
      return count;
    } finally {
      block.free();
    }
  }

  /**
   * Calls `use` with serialized words, piece by piece; the bytes are only valid during the call.
   */
  readWords(from: number, words: number, use: (bytes: Uint8Array) => void): void {
    const { bytes } = this.arena.scratch;
    for (let done = 0; done < words; ) {
      const count = Math.min(bytes.length / 8, words - done);
      const at = from + done * 64;
      const outcome = this.#kernels.bitmapReadWords(this.#at, at, count, this.#scratch);
      if (outcome < 0) this.#fail(outcome);
      use(bytes.subarray(0, count * 8));
      done += count;
    }
  }

  /** Makes the granules from `from` on what `source`, whole words, says. Not in one piece. */
  writeWords(from: number, source: Uint8Array): void {
    const { bytes } = this.arena.scratch;
    for (let done = 0; done < source.length; done += bytes.length) {
      const part = source.subarray(done, done + bytes.length);
      bytes.set(part);
      const at = from + done * 8;
      const outcome = this.#kernels.bitmapWriteWords(this.#at, at, part.length / 8, this.#scratch);
      if (outcome < 0) this.#fail(outcome);
    }
  }

  /**
   * Sets so many ranges in place where there is surely room for all of them, which costs nothing more; else in a
   * bitmap of its own, which is then merged.
   */
  #allOrNone(count: number, set: (bits: Bits) => void): void {
    if (count <= 1 || this.#kernels.bitmapHasRoom(this.#at, Math.min(count, 2 ** 31)) !== 0) {
      set(this);
      return;
    }
    const scratch = Bits.create(this.arena, this.size, this.shift);
    try {
      set(scratch);
      this.combine(scratch, 'merge');
    } finally {
      scratch.free();
    }
  }

  #setOffsets(offsets: ArrayLike<number>): void {
    const room = this.#numbers.length;
    for (let done = 0; done < offsets.length; done += room) {
      const count = Math.min(room, offsets.length - done);
      this.#copyIn(offsets, done, count);
      const set = this.#kernels.bitmapSetMany(this.#at, this.#pairs, count);
      if (set < count) this.#fail(this.#reason(this.#numbers[set], 1), this.#numbers[set], 1);
    }
  }

  #setPairs(pairs: ArrayLike<number>): void {
    const room = this.#numbers.length & ~1;
    for (let done = 0; done < pairs.length; done += room) {
      const count = Math.min(room, pairs.length - done) / 2;
      this.#copyIn(pairs, done, count * 2);
      const set = this.#kernels.bitmapSetRanges(this.#at, this.#pairs, count);
      if (set === count) continue;
      const [offset, length] = this.#numbers.subarray(set * 2, set * 2 + 2);
      this.#fail(this.#reason(offset, length), offset, length);
    }
  }

  get #at(): Pointer {
    if (this.#header === 0) throw new TypeError('the bitmap has been freed');
    return this.#header;
  }

  /** Where the scratch room's numbers begin. */
  get #pairs(): Pointer {
    return (this.#scratch + this.arena.instance.layout.walkBytes) as Pointer;
  }

  #claimInto(walk: Pointer, from: number, end: number, pairs: number, maxBytes: number): number {
    const count = this.#kernels.bitmapClaim(this.#at, from, end, walk, pairs, maxBytes);
    if (count < 0) this.#fail(count);
    return count;
  }

  #copyIn(values: ArrayLike<number>, from: number, count: number): void {
    for (let i = 0; i < count; i++) this.#numbers[i] = values[from + i];
  }

  /** Why a kernel that only tells how far it came did not go on. */
  #reason(offset: number, length: number): number {
    const { outOfRange, arenaFull: full } = this.#outcomes;
    return offset + length > this.size ? outOfRange : full;
  }

  #fail(outcome: number, offset = 0, length = 0): never {
    const { outOfRange, arenaFull: full, mismatch, corrupt } = this.#outcomes;
    if (outcome === full) throw arenaFull(this.arena.shared.maximumBytes);
    if (outcome === outOfRange) {
      throw new RangeError(
        `offset ${offset} and length ${length} reach behind the bitmap's ${this.size} bytes`,
      );
    }
    if (outcome === mismatch) {
      throw new LacunaError(
        'ERR_BITMAP_MISMATCH',
        `bitmaps of different sizes cannot be combined: ${this.size} and ${offset} bytes`,
      );
    }
    if (outcome === corrupt) {
      throw new LacunaError(
        'ERR_BITMAP_CORRUPT',
        'serialized bits behind the end of the bitmap are not zero: ' +
          'they belong to another size or granularity',
      );
    }
    throw new Error(`kernel answered ${outcome}`);
  }
}

function isAddress(value: number): boolean {
  return Number.isInteger(value) && value > 0 && value < 2 ** 32;
}
