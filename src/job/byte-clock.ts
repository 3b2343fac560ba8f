import { clockAfterChange, clockAt, earliestTicket, longestPiece, timeUntil } from './byte-rate.js';

/** Shorter pieces are not made, however low the rate is. */
const SHORTEST_PIECE = 4096;

/** A limit on bytes per second for work in one thread. All times are milliseconds of one clock. */
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
    return Math.max(SHORTEST_PIECE, longestPiece(this.#rate));
  }

  /** `rate` in bytes per second; undefined for none. */
  setRate(rate: number | undefined, now: number): void {
    this.#change(now, (rate ?? 0) / 1000, this.#runs);
  }

  /** Lets the clock run, or stand while the work is paused: what waits then must not go all at once. */
  run(runs: boolean, now: number): void {
    this.#change(now, this.#rate, runs);
  }

  /** A ticket for so many bytes. */
  draw(bytes: number, now: number): number {
    const ticket = Math.max(this.#handedOut, earliestTicket(this.#at(now), this.#rate));
    this.#handedOut = ticket + bytes;
    return ticket;
  }

  /** Milliseconds until a ticket's turn, unless the rate changes: 0 or less when it has come. */
  wait(ticket: number, now: number): number {
    return timeUntil(ticket, this.#at(now), this.#rate);
  }

  #at(now: number): number {
    return clockAt(this.#bytes, this.#since, now, this.#runs ? this.#rate : 0);
  }

  #change(now: number, rate: number, runs: boolean): void {
    this.#bytes = clockAfterChange(this.#at(now), this.#handedOut, this.#rate);
    this.#since = now;
    this.#rate = rate;
    this.#runs = runs;
  }
}
