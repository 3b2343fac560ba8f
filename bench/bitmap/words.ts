import { createHash } from 'node:crypto';
import type { Contender, Holder } from './contender.js';

/** A petabyte would take 2 GiB for each bitmap: not made. */
const MOST_GRANULES = 2 ** 28;

/** The plain way: one bit for each granule in 32-bit words. (64-bit ones are BigInts, and far slower.) */
export const plainWords: Contender = {
  name: 'plain words',
  make: (granules) => (granules > MOST_GRANULES ? null : new Words(granules)),
};

class Words implements Holder {
  readonly #granules: number;
  readonly #words: Uint32Array;

  constructor(granules: number, words = new Uint32Array(Math.ceil(granules / 32))) {
    this.#granules = granules;
    this.#words = words;
  }

  set(position: number): void {
    this.#words[position >>> 5] |= 1 << (position & 31);
  }

  setMany(positions: Float64Array): void {
    for (const position of positions) this.#words[position >>> 5] |= 1 << (position & 31);
  }

  reset(position: number): void {
    this.#words[position >>> 5] &= ~(1 << (position & 31));
  }

  get(position: number): boolean {
    return ((this.#words[position >>> 5] >>> (position & 31)) & 1) === 1;
  }

  next(position: number, dirty: boolean): number {
    const flip = dirty ? 0 : -1;
    let index = position >>> 5;
    let word = (this.#words[index] ^ flip) & (-1 << (position & 31));
    while (word === 0) {
      if (++index === this.#words.length) return -1;
      word = this.#words[index] ^ flip;
    }
    const found = index * 32 + 31 - Math.clz32(word & -word);
    return found < this.#granules ? found : -1;
  }

  setAll(): void {
    this.#words.fill(2 ** 32 - 1);
    if (this.#granules % 32 !== 0)
      this.#words[this.#words.length - 1] = 2 ** (this.#granules % 32) - 1;
  }

  resetAll(): void {
    this.#words.fill(0);
  }

  runs(): number {
    let count = 0;
    for (let at = this.next(0, true); at >= 0; count++) {
      const end = this.next(at, false);
      at = end < 0 ? -1 : this.next(end, true);
    }
    return count;
  }

  merge(other: this): void {
    for (let i = 0; i < this.#words.length; i++) this.#words[i] |= other.#words[i];
  }

  snapshot(): this {
    return new Words(this.#granules, this.#words.slice()) as this;
  }

  digest(): string {
    return createHash('sha256').update(this.#words).digest('hex');
  }

  count(): number {
    let count = 0;
    for (let word of this.#words) {
      for (; word !== 0; word &= word - 1) count++;
    }
    return count;
  }

  bytes(): number {
    return this.#words.byteLength;
  }

  free(): void {}
}
