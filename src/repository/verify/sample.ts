/** A share of all bytes, in other places each time. */
import type { Bitmap } from '../../bitmap/index.js';
import { DIGEST_BLOCK } from '../leaves/index.js';

/** Bytes that are read one behind the other. */
const PIECE = 16 * DIGEST_BLOCK;

export class Sample {
  readonly #share: number;
  readonly #phase = Math.random();
  /** Pieces of all bitmaps until now: an image that has but a few counts for as many. */
  #pieces = 0;

  /** @param share above 0, 1 at most */
  constructor(share: number) {
    this.#share = share;
  }

  /** Leaves the share in a bitmap, as whole pieces of what is dirty in it. */
  keepIn(bitmap: Bitmap): void {
    if (this.#share === 1) return;
    for (let at = bitmap.nextDirty(0); at !== -1; ) {
      const piece = at - (at % PIECE);
      const end = Math.min(bitmap.size, piece + PIECE);
      if (!this.#isNextChosen()) bitmap.reset(piece, end - piece);
      at = end < bitmap.size ? bitmap.nextDirty(end) : -1;
    }
  }

  /** Of so many pieces one behind the other, the share is chosen, to less than a piece. */
  #isNextChosen(): boolean {
    const before = Math.floor(this.#pieces * this.#share + this.#phase);
    this.#pieces++;
    return Math.floor(this.#pieces * this.#share + this.#phase) > before;
  }
}
