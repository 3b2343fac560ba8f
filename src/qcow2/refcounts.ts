import { joinHalves } from '../util/index.js';

/**
 * Refcounts of one width, as a refcount block packs them: big-endian from 8 bits up, and below that from the least
 * significant bit of each byte on. (Specification: "Host cluster management".)
 */
export class RefcountCodec {
  /** The width of a refcount is 2 to the power of this, in bits: 0 to 6. */
  readonly order: number;
  /** The highest refcount that fits; held exactly to 2^53 - 1. */
  readonly maximum: number;

  constructor(order: number) {
    if (!Number.isInteger(order) || order < 0 || order > 6) {
      throw new RangeError(`a refcount order is 0 to 6, not ${order}`);
    }
    this.order = order;
    this.maximum = order === 6 ? Number.MAX_SAFE_INTEGER : 2 ** (1 << order) - 1;
  }

  /** Refcounts that fit into `bytes`. */
  entriesIn(bytes: number): number {
    return (bytes * 8) / (1 << this.order);
  }

  /** Refcount `index` of a block. Those above 2^53 are not exact; nothing that is sane has them. */
  get(block: Uint8Array, index: number): number {
    switch (this.order) {
      case 3:
        return block[index];
      case 4:
        return block[2 * index] * 256 + block[2 * index + 1];
      case 5:
        return word(block, 4 * index);
      case 6:
        return joinHalves(word(block, 8 * index), word(block, 8 * index + 4));
    }
    const { byte, shift, mask } = this.#place(index);
    return (block[byte] >> shift) & mask;
  }

  /** Stores a refcount, which must be 0 to `maximum`. */
  set(block: Uint8Array, index: number, value: number): void {
    if (!(value >= 0 && value <= this.maximum)) {
      throw new RangeError(`refcount ${value} does not fit into ${1 << this.order} bits`);
    }
    if (this.order < 3) {
      const { byte, shift, mask } = this.#place(index);
      block[byte] = (block[byte] & ~(mask << shift)) | (value << shift);
      return;
    }
    if (this.order === 4) {
      block[2 * index] = value >>> 8;
      block[2 * index + 1] = value;
      return;
    }
    const width = 1 << (this.order - 3);
    let rest = value;
    for (let at = width * (index + 1) - 1; at >= width * index; at--) {
      block[at] = rest % 256;
      rest = Math.floor(rest / 256);
    }
  }

  /** The bytes of a block that hold refcounts, from one to before another one: from the first one to behind the last one. */
  bytesOf(first: number, end: number): { from: number; to: number } {
    const bits = 1 << this.order;
    return { from: (first * bits) >>> 3, to: Math.ceil((end * bits) / 8) };
  }

  /** First index from `from` on whose refcount is 0; `end` where there is none before it. */
  nextFree(block: Uint8Array, from: number, end: number): number {
    let index = from;
    while (index < end && this.get(block, index) !== 0) index++;
    return index;
  }

  /** First index from `from` on whose refcount is not 0; `end` where there is none before it. */
  nextUsed(block: Uint8Array, from: number, end: number): number {
    let index = from;
    while (index < end && this.get(block, index) === 0) index++;
    return index;
  }

  #place(index: number): { byte: number; shift: number; mask: number } {
    const bit = index << this.order;
    return { byte: bit >>> 3, shift: bit & 7, mask: (1 << (1 << this.order)) - 1 };
  }
}

function word(bytes: Uint8Array, at: number): number {
  return bytes[at] * 2 ** 24 + (bytes[at + 1] << 16) + (bytes[at + 2] << 8) + bytes[at + 3];
}
