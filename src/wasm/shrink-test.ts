import { Arena } from './arena.js';
import type { ArenaBlock } from './block.js';

/** Bytes that are looked at together. */
const PIECE_BYTES = 4096;
const VALUES = 256;
/**
 * By how much values may differ in frequency, as the chi-squared statistic of a piece on average. Of random bytes it is
 * 255; with 400, the code that suits the values best makes them shorter by 0.3 %.
 */
const MOST_UNEVEN = 400;
/** The sequences of three bytes that came last are in a table of so many, where one takes the place of another. */
const SEEN_BITS = 13;
/** How many positions may be repetitions. Of random bytes one in 2048 is. */
const MOST_REPEATED = 1 / 256;

/**
 * Tells bytes that deflate, with a window of 4 KiB, would make shorter by less than one percent from those that deserve
 * to be tried. It takes a tenth of the time that trying does; what is encrypted, or compressed already, is mostly given
 * up.
 */
export class ShrinkTest {
  readonly #arena: Arena;
  readonly #piece: ArenaBlock;
  readonly #counts: ArenaBlock;
  readonly #seen: ArenaBlock;

  /** @throws LacunaError ERR_ARENA_FULL. */
  constructor(arena = Arena.default) {
    this.#arena = arena;
    this.#piece = arena.allocate(PIECE_BYTES);
    this.#counts = arena.allocate(VALUES * 4);
    this.#seen = arena.allocate(2 ** SEEN_BITS * 4);
  }

  /** Whether bytes may become shorter. True where they are no whole pieces, which tell too little. */
  mayShrink(bytes: Uint8Array): boolean {
    const { length } = bytes;
    if (length % PIECE_BYTES !== 0) return true;
    const mostUneven = (length / PIECE_BYTES) * MOST_UNEVEN;
    const mostRepeated = length * MOST_REPEATED;
    let uneven = 0;
    let repeated = 0;
    this.#clear();
    for (let at = 0; at < length; at += PIECE_BYTES) {
      this.#piece.bytes.set(bytes.subarray(at, at + PIECE_BYTES));
      uneven += this.#unevenness();
      if (uneven > mostUneven) return true;
      repeated += this.#repeats();
      if (repeated > mostRepeated) return true;
    }
    return false;
  }

  #unevenness(): number {
    const { kernels } = this.#arena.instance;
    const piece = this.#piece.addressOf(0, PIECE_BYTES);
    const squares = kernels.valueSquares(piece, PIECE_BYTES, this.#counts.addressOf(0, VALUES * 4));
    return (squares * VALUES) / PIECE_BYTES - PIECE_BYTES;
  }

  #clear(): void {
    this.#arena.instance.kernels.clearSeen(this.#seen.addressOf(0, this.#seen.length), SEEN_BITS);
  }

  #repeats(): number {
    const { kernels } = this.#arena.instance;
    const seen = this.#seen.addressOf(0, this.#seen.length);
    return kernels.repeats(this.#piece.addressOf(0, PIECE_BYTES), PIECE_BYTES, seen, SEEN_BITS);
  }
}
