import { alignDown, alignUp } from '../../util/index.js';

/** A piece of a request: whole blocks, or a part of one block. */
export interface Part {
  readonly start: number;
  readonly end: number;
  readonly whole: boolean;
}

/**
 * The blocks of a device: the units of `limits.minimum` bytes that a driver reads and writes as a whole.
 * The last one may be shorter, where the size is not a multiple of it.
 *
 *     request          |--------------------------------|
 *     blocks   |----------|----------|----------|----------|
 *     parts            part      whole  (one)      part
 */
export class Grid {
  readonly #block: number;
  readonly #size: number;

  constructor(block: number, size: number) {
    this.#block = block;
    this.#size = size;
  }

  /** Whether a range is made of whole blocks. */
  isWhole(start: number, end: number): boolean {
    const block = this.#block;
    return block === 1 || (start % block === 0 && (end % block === 0 || end === this.#size));
  }

  /** First byte of the block that holds `offset`. */
  down(offset: number): number {
    return alignDown(offset, this.#block);
  }

  /** First byte behind the block that ends at or behind `offset`. */
  up(offset: number): number {
    return Math.min(alignUp(offset, this.#block), this.#size);
  }

  /** Cuts a range into parts: part of a block, whole blocks, part of a block, each where there is one. */
  parts(start: number, end: number): Part[] {
    const first = this.up(start);
    const last = end === this.#size ? end : this.down(end);
    if (first > last) return [{ start, end, whole: false }];
    const parts: Part[] = [
      { start, end: first, whole: false },
      { start: first, end: last, whole: true },
      { start: last, end, whole: false },
    ];
    return parts.filter((part) => part.start < part.end);
  }
}
