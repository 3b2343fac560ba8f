/** What may be caught up of time in which nobody had anything to move. */
const BURST_MS = 25;

/** Limited work is done in pieces of this much time at most, so that they spread over the second. */
const PIECE_MS = 32;

/** Shorter pieces are not made, however low the rate is. */
const SHORTEST_PIECE = 4096;

/**
 * A limit on bytes per second for work in one thread: a clock that counts the bytes which may have moved by now. Whoever
 * moves some draws a ticket behind all others, and goes when the clock has come to it. Time that nobody used is
 * forgotten but for a moment. All times are milliseconds of one clock.
 */
export class ByteClock {
  #bytes = 0;
  #since = 0;
  #handedOut = 0;
  /** Bytes per millisecond; 0 for no limit. */
  #rate = 0;
  #runs = true;

  constructor(now: number) {
    this.#since = now;
  }

  /** The longest piece that spreads well over time, a power of two; Infinity without a limit. */
  get pieceSize(): number {
    if (this.#rate === 0) return Number.POSITIVE_INFINITY;
    return Math.max(SHORTEST_PIECE, 2 ** Math.floor(Math.log2(this.#rate * PIECE_MS)));
  }

  /** `rate` in bytes per second; undefined for none. */
  setRate(rate: number | undefined, now: number): void {
    // Without a limit nobody waited for a turn: all that was handed out has gone.
    this.#bytes = this.#rate > 0 ? this.#at(now) : Math.max(this.#at(now), this.#handedOut);
    this.#since = now;
    this.#rate = (rate ?? 0) / 1000;
  }

  /** Lets the clock run, or stand while the work is paused: what waits then must not go all at once. */
  run(runs: boolean, now: number): void {
    this.#bytes = this.#at(now);
    this.#since = now;
    this.#runs = runs;
  }

  /** A ticket for so many bytes. */
  draw(bytes: number, now: number): number {
    const ticket = Math.max(this.#handedOut, this.#at(now) - this.#rate * BURST_MS);
    this.#handedOut = ticket + bytes;
    return ticket;
  }

  /** Milliseconds until a ticket's turn, unless the rate changes: 0 or less when it has come. */
  wait(ticket: number, now: number): number {
    return this.#rate === 0 ? 0 : (ticket - this.#at(now)) / this.#rate;
  }

  #at(now: number): number {
    return this.#bytes + (this.#runs ? (now - this.#since) * this.#rate : 0);
  }
}
