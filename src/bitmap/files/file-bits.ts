/**
 * The bits of one bitmap in a file, in runs of words of 64 granules. Each run begins with 8 bytes:
 * the number of its words times 4, and its kind.
 *
 *     0  all of its granules are clean     nothing follows
 *     1  all of them are dirty             nothing follows
 *     2  mixed                             its words follow, 8 bytes each, bit 0 = lowest offset
 *
 * The runs cover the bitmap exactly. Granules behind the end of the disk are clean, so a partial
 * last word is never of kind 1. A bitmap that is empty or full takes some bytes whatever its size, a
 * lone dirty granule 24, and a dense bitmap hardly more than its serialization.
 */
import { joinHalves, viewOf, writeU64 } from '../../util/index.js';
import type { Bitmap } from '../bits/index.js';

const CLEAN = 0;
const DIRTY = 1;
const MIXED = 2;

const WORD = 64;
/** Words of a mixed run that are gathered before they are written. */
const BATCH = 4096;
/** Runs of granules that are read from or set in a bitmap at once. */
const PAIRS = 512;

/** Where a section is read from. The bytes are only valid until the next call. */
export interface Source {
  take(length: number): Buffer;
  corrupt(what: string): Error;
}

/** Writes the bits of a bitmap as a section, in pieces that are only valid during the call. */
export function writeBits(bitmap: Bitmap, sink: (bytes: Uint8Array) => void): void {
  const { granularity, size } = bitmap;
  const granules = Math.ceil(size / granularity);
  const writer = new RunWriter(sink);
  const pairs = new Float64Array(PAIRS * 2);
  for (let from = 0, count = PAIRS; count === PAIRS; ) {
    count = bitmap.readRanges(from, size, pairs);
    for (let i = 0; i < count * 2; i += 2) {
      from = pairs[i] + pairs[i + 1];
      writer.add(pairs[i] / granularity, Math.ceil(from / granularity));
    }
  }
  writer.end(Math.ceil(granules / WORD));
}

class RunWriter {
  readonly #sink: (bytes: Uint8Array) => void;
  readonly #mixed = Buffer.alloc(8 + BATCH * 8);
  readonly #view = viewOf(this.#mixed);
  #kind = CLEAN;
  #count = 0;
  /** The word that is being put together: its index, and its two halves. */
  #at = 0;
  #low = 0;
  #high = 0;

  constructor(sink: (bytes: Uint8Array) => void) {
    this.#sink = sink;
  }

  /** Granules from `first` up to `end` are dirty; they lie behind those of the last call. */
  add(first: number, end: number): void {
    this.#advance(Math.floor(first / WORD));
    for (let at = first; at < end; ) {
      const bit = at % WORD;
      const words = bit === 0 ? Math.floor((end - at) / WORD) : 0;
      if (words > 0) {
        this.#put(DIRTY, words);
        this.#at += words;
        at += words * WORD;
        continue;
      }
      const to = Math.min(WORD, bit + end - at);
      this.#low |= ones(bit, Math.min(to, 32));
      this.#high |= ones(Math.max(bit, 32) - 32, to - 32);
      at += to - bit;
      if (to === WORD) this.#advance(this.#at + 1);
    }
  }

  end(words: number): void {
    this.#advance(words);
    this.#flush();
  }

  /** Ends the word under construction and goes on with another one; those between are clean. */
  #advance(word: number): void {
    if (word === this.#at) return;
    this.#putWord();
    if (word > this.#at) this.#put(CLEAN, word - this.#at);
    this.#at = word;
  }

  #putWord(): void {
    const both = this.#low & this.#high;
    if ((this.#low | this.#high) === 0) this.#put(CLEAN, 1);
    else if (both === -1) this.#put(DIRTY, 1);
    else {
      if (this.#kind === MIXED && this.#count === BATCH) this.#flush();
      this.#put(MIXED, 1);
      this.#mixed.writeInt32LE(this.#low, this.#count * 8);
      this.#mixed.writeInt32LE(this.#high, this.#count * 8 + 4);
    }
    this.#low = 0;
    this.#high = 0;
    this.#at++;
  }

  #put(kind: number, words: number): void {
    if (kind !== this.#kind) this.#flush();
    this.#kind = kind;
    this.#count += words;
  }

  #flush(): void {
    if (this.#count === 0) return;
    const head = this.#count * 4 + this.#kind;
    writeU64(this.#view, 0, head, true);
    const words = this.#kind === MIXED ? this.#count : 0;
    this.#sink(this.#mixed.subarray(0, 8 + words * 8));
    this.#count = 0;
  }
}

/** A mask with the bits from `from` up to `to`, both from 0 to 32 or beyond. */
function ones(from: number, to: number): number {
  if (to <= from) return 0;
  return (to - from === 32 ? -1 : (1 << (to - from)) - 1) << from;
}

/** Sets in a clean bitmap what a section says. Throws when it cannot be a section of this bitmap. */
export function readBits(bitmap: Bitmap, source: Source): void {
  const setter = new RunSetter(bitmap, source);
  const words = Math.ceil(setter.granules / WORD);
  for (let at = 0; at < words; ) {
    const head = source.take(8);
    const value = joinHalves(head.readUInt32LE(4), head.readUInt32LE(0));
    const kind = value % 4;
    const count = Math.floor(value / 4);
    if (count < 1 || count > words - at) {
      throw source.corrupt(`${count} words follow where there are ${words - at}`);
    }
    if (kind > MIXED) throw source.corrupt(`words of kind ${kind} are not known`);
    if (kind === DIRTY) setter.add(at * WORD, (at + count) * WORD);
    if (kind === MIXED) readWords(setter, source, at, count);
    at += count;
  }
  setter.end();
}

function readWords(setter: RunSetter, source: Source, at: number, count: number): void {
  for (let done = 0; done < count; ) {
    const words = Math.min(BATCH, count - done);
    const bytes = source.take(words * 8);
    for (let i = 0; i < words; i++) {
      const first = (at + done + i) * WORD;
      addHalf(setter, first, bytes.readInt32LE(i * 8));
      addHalf(setter, first + 32, bytes.readInt32LE(i * 8 + 4));
    }
    done += words;
  }
}

/** Adds the runs of ones in 32 bits. */
function addHalf(setter: RunSetter, first: number, half: number): void {
  for (let at = 0, rest = half; rest !== 0; ) {
    const zeros = trailingZeros(rest);
    at += zeros;
    rest >>>= zeros;
    const length = trailingZeros(~rest);
    setter.add(first + at, first + at + length);
    at += length;
    rest = length === 32 ? 0 : rest >>> length;
  }
}

function trailingZeros(value: number): number {
  return value === 0 ? 32 : 31 - Math.clz32(value & -value);
}

/** Sets runs of granules in batches, neighbours joined. */
class RunSetter {
  readonly granules: number;
  readonly #bitmap: Bitmap;
  readonly #source: Source;
  readonly #pairs = new Float64Array(PAIRS * 2);
  #filled = 0;
  #first = 0;
  #end = 0;

  constructor(bitmap: Bitmap, source: Source) {
    this.granules = Math.ceil(bitmap.size / bitmap.granularity);
    this.#bitmap = bitmap;
    this.#source = source;
  }

  add(first: number, end: number): void {
    if (end > this.granules) throw this.#source.corrupt('something is dirty behind the end');
    if (first !== this.#end) {
      this.#put();
      this.#first = first;
    }
    this.#end = end;
  }

  end(): void {
    this.#put();
    this.#bitmap.setRanges(this.#pairs.subarray(0, this.#filled));
  }

  #put(): void {
    if (this.#first === this.#end) return;
    const { granularity, size } = this.#bitmap;
    const offset = this.#first * granularity;
    this.#pairs[this.#filled++] = offset;
    this.#pairs[this.#filled++] = Math.min(this.#end * granularity, size) - offset;
    if (this.#filled < this.#pairs.length) return;
    this.#bitmap.setRanges(this.#pairs);
    this.#filled = 0;
  }
}
