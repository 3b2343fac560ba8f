/**
 * A dirty bitmap over a disk of up to 8 PiB - 1 bytes.
 *
 * Structure. A radix tree over granules. A leaf holds 4096 bits in 512 bytes; a node has 64 slots of
 * 8 bytes. A slot at level L speaks of 2^(12 + 6 L) granules, and there are as many
 * levels as the size needs:
 *
 *     root slot (in the header)          level 2:  2^24 granules, 1 TiB at 64 KiB
 *        |
 *     +------+------+------+--- ... --+
 *     | CLEAN| DIRTY| NODE | CLEAN    |  64 slots of level 1: 2^18 granules, 16 GiB each
 *     +------+------+--|---+--- ... --+
 *                      |  where, and the number of dirty granules below
 *              +------+------+------+--- ... --+
 *              | RUNS | LIST | NODE | CLEAN    |  64 slots of level 0: 2^12 granules, 256 MiB each
 *              +--|---+--|---+--|---+--- ... --+
 *                 |      |      |
 *                 |      |    leaf: 4096 bits, 64 words, bit 0 = lowest offset
 *                 |   up to 16 runs, 64 bytes
 *       one or two runs
 *
 * Invariants. A part that is uniform is CLEAN or DIRTY, whatever its size, so NODE means mixed.
 * Bits behind the end are clean, so only the path to the right edge of a full bitmap is mixed. The
 * header knows the number of dirty granules, every slot up to level 4 the number below it. Nodes,
 * leaves and lists are counted by reference and copied when written with more than one; that is all
 * a snapshot needs.
 *
 * Cost. With n granules there are at most 7 levels (log64 n): one granule, the next dirty or clean
 * one, a count or the n-th dirty granule take one path down, a range two. `setAll`, `resetAll`, a
 * snapshot, and merging with an empty or full bitmap touch one path or the root alone. Memory:
 * nothing for what is uniform, 8 bytes for 4096 granules with up to two runs, 72 bytes with up to
 * sixteen, 520 bytes otherwise; 1 M bits scattered over 1 PiB at 64 KiB take some 40 MiB, and a
 * million runs at equal distances never more than 65.
 *
 * Threads. All of it lives in the arena; `handle` attaches to it in another thread. One lock for
 * each bitmap makes every call atomic, `claim` and the algebra included.
 */

import type { Range } from '../../extent/index.js';
import { counted, optionCheck } from '../../util/index.js';
import { Arena, type BitmapHandle, Bits } from '../../wasm/index.js';
import { checkAll, checkBytes, checkPairs, checkRange, granularityShift } from './arguments.js';
import { RangeIterator } from './ranges.js';
import { deserialize, digest, serialize } from './serialize.js';

/** What a bitmap speaks of, and where its bits live. */
export interface BitmapOptions {
  /** Bytes of the disk, 0 to 2^53 - 1. */
  size: number;
  /** Bytes that one bit stands for: a power of two from 512 to 2^31. */
  granularity: number;
  /** Where the bits live; default the arena of this thread. */
  arena?: Arena;
}

const checkBitmapOptions = optionCheck<BitmapOptions>({
  size: { needed: 'bytes of the disk' },
  granularity: { needed: 'bytes that one bit stands for' },
  arena: 'any',
});

/** How much is claimed at once, and where. */
export interface ClaimOptions {
  /** Take at most so many bytes, rounded down to whole granules, but at least one granule. */
  maxBytes: number;
  /** Take only granules that begin at or behind this byte. Default 0. */
  from?: number;
  /** Take only granules that end at or before this byte. Default the size. */
  end?: number;
}

const checkClaimOptions = optionCheck<ClaimOptions>({
  maxBytes: { needed: 'how much may be taken at once' },
  from: 'any',
  end: 'any',
});

/** Which granules of a disk are dirty. Offsets, lengths and ends are bytes. */
export class Bitmap {
  /** Bytes that one bit stands for. */
  readonly granularity: number;
  readonly #bits: Bits;

  /**
   * Makes a clean bitmap.
   *
   * @throws TypeError or RangeError when size or granularity is out of its range.
   * @throws LacunaError ERR_ARENA_FULL
   */
  constructor(options: BitmapOptions);
  /** @internal */
  constructor(bits: Bits);
  constructor(from: BitmapOptions | Bits) {
    this.#bits = from instanceof Bits ? from : create(from);
    this.granularity = 2 ** this.#bits.shift;
  }

  /**
   * The bitmap of another thread, by its {@link handle}. Each attached bitmap is a holder of its
   * own: the bits are gone when all have been freed. The sender must not free its own before this
   * call.
   *
   * @throws TypeError when the handle is none, or of another arena.
   */
  static attach(arena: Arena, handle: BitmapHandle): Bitmap {
    return new Bitmap(Bits.attach(arena, handle));
  }

  /** A plain value for {@link attach}. */
  get handle(): BitmapHandle {
    return this.#bits.handle;
  }

  /**
   * Where the bits live. To use them in another thread, post `arena.shared` and the {@link handle}.
   */
  get arena(): Arena {
    return this.#bits.arena;
  }

  /** Bytes of the disk. */
  get size(): number {
    return this.#bits.size;
  }

  /** Dirty granules. O(1). */
  get count(): number {
    return this.#bits.count;
  }

  /**
   * Dirty bytes; a partial last granule counts with what there is of it. O(1) but for one look at
   * the end.
   */
  get dirtyBytes(): number {
    return this.#bits.dirtyBytes;
  }

  /**
   * Makes every granule dirty that the range touches. A length of 0 does nothing.
   *
   * @throws RangeError when the range reaches behind the size.
   * @throws LacunaError ERR_ARENA_FULL; nothing has changed then.
   */
  set(offset: number, length: number): void {
    checkRange(offset, length);
    this.#bits.set(offset, length);
  }

  /**
   * Makes every granule clean that lies wholly in the range; the partial last granule does when the
   * range reaches the end. Dirt is never lost by rounding.
   *
   * @throws RangeError when the range reaches behind the size.
   * @throws LacunaError ERR_ARENA_FULL; nothing has changed then.
   */
  reset(offset: number, length: number): void {
    checkRange(offset, length);
    this.#bits.reset(offset, length);
  }

  /** Makes everything dirty. */
  setAll(): void {
    this.#bits.fill(true);
  }

  /** Makes everything clean. */
  resetAll(): void {
    this.#bits.fill(false);
  }

  /**
   * Makes the granule of each offset dirty: {@link set} with a length of 1, but many for the price
   * of a call.
   *
   * @throws RangeError when an offset lies outside.
   * @throws LacunaError ERR_ARENA_FULL. Nothing has changed then.
   */
  setMany(offsets: Float64Array | readonly number[]): void {
    checkAll('offsets', offsets);
    this.#bits.setMany(offsets);
  }

  /**
   * {@link set} for many ranges: offset, length, offset, length, ...
   *
   * @throws RangeError when a range lies outside.
   * @throws LacunaError ERR_ARENA_FULL. Nothing has changed then.
   */
  setRanges(pairs: Float64Array | readonly number[]): void {
    checkAll('pairs', pairs);
    if (pairs.length % 2 !== 0) {
      throw new RangeError(
        `pairs must be offsets and lengths by turns, not ${counted(pairs.length, 'number')}`,
      );
    }
    this.#bits.setRanges(pairs);
  }

  /**
   * Whether the byte at `offset` is in a dirty granule.
   *
   * @throws RangeError when there is no such byte.
   */
  get(offset: number): boolean {
    checkBytes('offset', offset);
    return this.#bits.get(offset);
  }

  /** First dirty byte at or behind `offset` and before `end`; -1 when there is none. */
  nextDirty(offset: number, end: number = Number.MAX_SAFE_INTEGER): number {
    checkBytes('offset', offset);
    checkBytes('end', end);
    return this.#bits.find(offset, end, true);
  }

  /** First clean byte at or behind `offset` and before `end`; -1 when there is none. */
  nextZero(offset: number, end: number = Number.MAX_SAFE_INTEGER): number {
    checkBytes('offset', offset);
    checkBytes('end', end);
    return this.#bits.find(offset, end, false);
  }

  /**
   * The next dirty run between `offset` and `end`, of at most `maxLength` bytes; null when there is
   * none.
   */
  nextDirtyArea(
    offset: number,
    end: number = Number.MAX_SAFE_INTEGER,
    maxLength: number = Number.MAX_SAFE_INTEGER,
  ): Range | null {
    checkBytes('offset', offset);
    checkBytes('end', end);
    checkBytes('maxLength', maxLength);
    if (maxLength === 0) throw new RangeError('maxLength must be above 0');
    return this.#bits.area(offset, end, maxLength);
  }

  /**
   * Whether the byte at `offset` is dirty, and for how many of the `length` bytes from there on the
   * same is true.
   *
   * @throws RangeError when the range is empty or reaches behind the size.
   */
  status(offset: number, length: number): { dirty: boolean; length: number } {
    checkRange(offset, length);
    if (length === 0) throw new RangeError('length must be above 0');
    return this.#bits.status(offset, length);
  }

  /**
   * The dirty runs between `from` and `end`, clipped to both, in order. Other calls may come
   * between two runs: what they change ahead is seen soon, but not at once, since runs are fetched
   * in batches.
   */
  ranges(from = 0, end: number = Number.MAX_SAFE_INTEGER): IterableIterator<Range> {
    checkBytes('from', from);
    checkBytes('end', end);
    return new RangeIterator(this.#bits, from, end);
  }

  /**
   * The dirty runs of {@link ranges} as pairs of offset and length in `out`. Returns the number of
   * pairs; fewer than there is room for means that there are no more.
   */
  readRanges(from: number, end: number, out: Float64Array): number {
    checkBytes('from', from);
    checkBytes('end', end);
    checkPairs(out);
    return this.#bits.runs(from, end, out);
  }

  /**
   * Dirty bytes in a range, from the counts in the tree.
   *
   * @throws RangeError when the range reaches behind the size.
   */
  countIn(offset: number, length: number): number {
    checkRange(offset, length);
    return this.#bits.countIn(offset, length);
  }

  /**
   * Cuts the disk into `parts` ranges whose shares of the dirty granules differ by one at most.
   * Returns the `parts + 1` boundaries, from 0 to the size; a part may be empty when there is
   * little dirt.
   *
   * @throws LacunaError ERR_ARENA_FULL
   */
  split(parts: number): number[] {
    if (!Number.isSafeInteger(parts) || parts < 1) {
      throw new RangeError(`parts must be a whole number above 0, not ${parts}`);
    }
    const frozen = this.#bits.snapshot();
    try {
      return boundaries(frozen, parts);
    } finally {
      frozen.free();
    }
  }

  /**
   * Adds the dirt of `other`. With different granularities the exact result is rounded outward to
   * granules of this bitmap; so in all four operations. `other` stays as it is, and may be this
   * bitmap itself.
   *
   * @throws LacunaError ERR_BITMAP_MISMATCH when the sizes differ; ERR_ARENA_FULL. Nothing has
   * changed then.
   */
  merge(other: Bitmap): void {
    this.#combine(other, 'merge');
  }

  /** Makes clean what is dirty in `other`. See {@link merge}. */
  subtract(other: Bitmap): void {
    this.#combine(other, 'subtract');
  }

  /** Leaves dirty only what is dirty in `other` too. See {@link merge}. */
  intersect(other: Bitmap): void {
    this.#combine(other, 'intersect');
  }

  /** Leaves dirty what is dirty in exactly one of the two. See {@link merge}. */
  xor(other: Bitmap): void {
    this.#combine(other, 'xor');
  }

  /**
   * A second bitmap with the same content, at once: the two share what neither has changed since.
   */
  snapshot(): Bitmap {
    return new Bitmap(this.#bits.snapshot());
  }

  /**
   * Gives the disk another size. Granules that are new are clean; a partial last granule keeps its
   * state.
   *
   * @throws LacunaError ERR_ARENA_FULL; nothing has changed then.
   */
  resize(size: number): void {
    checkBytes('size', size);
    this.#bits.resize(size);
  }

  /**
   * The bits of a range as little-endian 64-bit words, bit 0 for the lowest offset: what qcow2 and
   * QEMU's migration store. Offset and end must be multiples of 64 granules, or the end of the
   * disk.
   *
   * @throws RangeError when they are not.
   */
  serialize(offset = 0, length: number = this.size - offset): Uint8Array {
    checkRange(offset, length);
    return serialize(this.#bits, offset, length);
  }

  /**
   * Replaces the granules from `offset` (a multiple of 64 granules) on by what `bytes`, a
   * serialization, says. What `bytes` does not speak of stays.
   *
   * @throws LacunaError ERR_BITMAP_CORRUPT when `bytes` cannot belong there; ERR_ARENA_FULL.
   * Nothing has changed then.
   */
  deserialize(bytes: Uint8Array, offset = 0): void {
    checkBytes('offset', offset);
    if (!(bytes instanceof Uint8Array)) throw new TypeError('bytes must be a Uint8Array');
    deserialize(this.#bits, bytes, offset);
  }

  /** SHA-256 over the whole serialization: QEMU's `x-debug-block-dirty-bitmap-sha256`. */
  digest(): string {
    return digest(this.#bits);
  }

  /**
   * Takes the lowest dirty runs, so that no other thread takes them: writes them to `out` as pairs
   * of offset and length, and makes them clean, in one step. Returns the number of pairs; 0 when
   * nothing is left.
   *
   * @throws LacunaError ERR_ARENA_FULL; nothing has been taken then.
   */
  claim(out: Float64Array, options: ClaimOptions): number {
    checkClaimOptions('claim', options);
    const { maxBytes, from = 0, end = Number.MAX_SAFE_INTEGER } = options;
    checkPairs(out);
    checkBytes('maxBytes', maxBytes);
    checkBytes('from', from);
    checkBytes('end', end);
    return this.#bits.claim(from, end, out, maxBytes);
  }

  /**
   * Gives up this holder's share; the last one frees the memory. Any other call throws afterwards.
   */
  free(): void {
    this.#bits.free();
  }

  [Symbol.dispose](): void {
    this.free();
  }

  #combine(other: Bitmap, operation: 'merge' | 'subtract' | 'intersect' | 'xor'): void {
    if (!(other instanceof Bitmap)) throw new TypeError(`other must be a Bitmap, not ${other}`);
    const { arena } = this.#bits;
    if (other.#bits.arena.shared.memory === arena.shared.memory) {
      this.#bits.combine(other.#bits, operation);
      return;
    }
    const copy = copyInto(arena, other.#bits);
    try {
      this.#bits.combine(copy, operation);
    } finally {
      copy.free();
    }
  }
}

function create(options: BitmapOptions): Bits {
  checkBitmapOptions('Bitmap', options);
  const { size, granularity, arena } = options;
  checkBytes('size', size);
  const shift = granularityShift(granularity);
  if (arena !== undefined && !(arena instanceof Arena)) {
    throw new TypeError(`arena must be an Arena, not ${arena}`);
  }
  return Bits.create(arena ?? Arena.default, size, shift);
}

/** The same bitmap in another arena: nodes cannot be shared across memories. */
function copyInto(arena: Arena, source: Bits): Bits {
  const copy = Bits.create(arena, source.size, source.shift);
  try {
    const buffer = new Float64Array(1024);
    for (let from = 0, count = -1; count !== 0; ) {
      count = source.runs(from, Number.MAX_SAFE_INTEGER, buffer);
      copy.setRanges(buffer.subarray(0, count * 2));
      if (count > 0) from = buffer[count * 2 - 2] + buffer[count * 2 - 1];
    }
    return copy;
  } catch (error) {
    copy.free();
    throw error;
  }
}

function boundaries(bits: Bits, parts: number): number[] {
  const share = Math.floor(bits.count / parts);
  const rest = bits.count % parts;
  const result = [0];
  for (let i = 1; i < parts; i++) {
    const cut = bits.select(share * i + Math.min(i, rest));
    result.push(cut < 0 ? bits.size : cut);
  }
  result.push(bits.size);
  return result;
}
