import type { Kernels, Pointer } from './kernels.js';

/** A piece of an arena for one holder: an I/O slot, or room for results. */
export class ArenaBlock {
  /** The bytes. The view stays valid until `free`. */
  readonly bytes: Uint8Array;
  readonly #kernels: Kernels;
  #address: Pointer | 0;

  /** @internal Made by Arena.allocate. */
  constructor(kernels: Kernels, address: Pointer, bytes: Uint8Array) {
    this.#kernels = kernels;
    this.#address = address;
    this.bytes = bytes;
  }

  /** Bytes. */
  get length(): number {
    return this.bytes.length;
  }

  /** Gives the block back. Its bytes must not be used any more; freeing twice does nothing. */
  free(): void {
    if (this.#address === 0) return;
    this.#kernels.release(this.#address);
    this.#address = 0;
  }

  [Symbol.dispose](): void {
    this.free();
  }

  /** @internal The address of a range inside the block, for the rest of `src/wasm`. */
  addressOf(offset: number, length: number): Pointer {
    if (this.#address === 0) throw new TypeError('the block has been freed');
    if (!Number.isSafeInteger(offset) || offset < 0 || offset > this.length) {
      throw new RangeError(`offset ${offset} is outside the block of ${this.length} bytes`);
    }
    if (!Number.isSafeInteger(length) || length < 0 || length > this.length - offset) {
      throw new RangeError(`length ${length} at ${offset} is outside the ${this.length} bytes`);
    }
    return (this.#address + offset) as Pointer;
  }
}
