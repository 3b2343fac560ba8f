import type { Bitmap } from '../../../bitmap/index.js';
import type { BlockDevice } from '../../../block/index.js';
import { viewOf } from '../../../util/index.js';

const KIB = 1024;
const MIB = 1024 * KIB;

/** What a guest writes begins and ends at multiples of this, as a file system's blocks do. */
const BLOCK = 4 * KIB;
const LONGEST_WRITE = 2 * MIB;

/** How much a guest wrote, and in how many places. */
export interface Written {
  bytes: number;
  places: number;
}

/**
 * Plays the machine that owns a disk: it writes here and there, as file systems do, and everything that it
 * changes is noted in a bitmap, if there is one.
 */
export class Guest {
  /** Notes what changes; set it when changes begin to count. */
  tracker: Bitmap | undefined;
  readonly #device: BlockDevice;
  readonly #signal: AbortSignal;
  readonly #random: Random;
  readonly #content: Uint8Array;
  #writes = 0;

  constructor(device: BlockDevice, signal: AbortSignal, seed = 1) {
    this.#device = device;
    this.#signal = signal;
    this.#random = new Random(seed);
    this.#content = this.#random.bytes(LONGEST_WRITE);
  }

  /** Writes about this many bytes, scattered over as many areas of the disk. */
  async scatter(bytes: number, areas: number): Promise<Written> {
    const written = { bytes: 0, places: 0 };
    while (written.bytes < bytes) {
      const area = this.#somewhere(this.#device.size);
      const share = Math.min(bytes / areas, bytes - written.bytes);
      for (const before = written.bytes; written.bytes - before < share; written.places++) {
        written.bytes += await this.#writeNear(area, bytes - written.bytes);
      }
    }
    return written;
  }

  /** Writes over parts of what it wrote before, at places from `places`. */
  async overwrite(places: readonly number[], length: number): Promise<Written> {
    for (const offset of places) await this.#write(offset, length);
    return { bytes: places.length * length, places: places.length };
  }

  /** Zeroes a range, as a guest does that deletes and trims. */
  async zero(offset: number, length: number): Promise<void> {
    await this.#device.zero(offset, length, { signal: this.#signal });
    this.tracker?.set(offset, length);
  }

  /** Files lie close together: most writes of an area fall within the same gibibyte. */
  async #writeNear(area: number, most: number): Promise<number> {
    const blocks = 1 + this.#random.below(LONGEST_WRITE / BLOCK);
    const length = Math.min(blocks * BLOCK, Math.max(BLOCK, most - (most % BLOCK)));
    const reach = Math.min(1024 * MIB, this.#device.size / 16);
    const offset = Math.min(area + this.#somewhere(reach), this.#device.size - length);
    await this.#write(offset - (offset % BLOCK), length);
    return length;
  }

  async #write(offset: number, length: number): Promise<void> {
    const bytes = this.#content.subarray(0, length);
    // A stamp makes every block unlike all others, so that a block in the wrong place is found out.
    const view = viewOf(bytes);
    this.#writes++;
    for (let at = 0; at < length; at += BLOCK) {
      view.setFloat64(at, offset + at);
      view.setUint32(at + 8, this.#writes);
    }
    await this.#device.write(offset, bytes, { signal: this.#signal });
    this.tracker?.set(offset, length);
  }

  #somewhere(size: number): number {
    return this.#random.below(size / BLOCK) * BLOCK;
  }
}

/** Xorshift32: the same disk on every run, so that a report of a run can be repeated. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0 || 1;
  }

  /** A whole number from 0 to below `limit`, which may exceed 32 bits. */
  below(limit: number): number {
    const share = (this.#next() * 2 ** 21 + (this.#next() >>> 11)) / 2 ** 53;
    return Math.floor(share * limit);
  }

  bytes(length: number): Uint8Array {
    const words = new Uint32Array(length / 4);
    for (let i = 0; i < words.length; i++) words[i] = this.#next();
    return new Uint8Array(words.buffer);
  }

  #next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }
}
