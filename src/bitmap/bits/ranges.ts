import type { Range } from '../../extent/index.js';
import type { Bits } from '../../wasm/index.js';

/**
 * Runs fetched by one call: enough to forget what a call costs, little enough to stay in the cache.
 */
const BATCH = 512;

/** Iterates dirty runs, none of which is empty, over a buffer that is filled again and again. */
export class RangeIterator implements IterableIterator<Range> {
  readonly #bits: Bits;
  readonly #end: number;
  readonly #buffer = new Float64Array(BATCH * 2);
  #next: number;
  #index = 0;
  #filled = 0;
  #done = false;

  constructor(bits: Bits, from: number, end: number) {
    this.#bits = bits;
    this.#next = from;
    this.#end = end;
  }

  next(): IteratorResult<Range, undefined> {
    if (this.#index === this.#filled && !this.#fill()) return { done: true, value: undefined };
    const offset = this.#buffer[this.#index];
    const length = this.#buffer[this.#index + 1];
    this.#index += 2;
    return { done: false, value: { offset, length } };
  }

  [Symbol.iterator](): this {
    return this;
  }

  #fill(): boolean {
    if (this.#done) return false;
    const count = this.#bits.runs(this.#next, this.#end, this.#buffer);
    this.#done = count < BATCH;
    this.#index = 0;
    this.#filled = count * 2;
    if (count === 0) return false;
    this.#next = this.#buffer[this.#filled - 2] + this.#buffer[this.#filled - 1];
    return true;
  }
}
