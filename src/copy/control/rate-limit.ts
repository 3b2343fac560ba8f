import {
  clockAfterChange,
  clockAt,
  earliestTicket,
  longestPiece,
  timeUntil,
} from '../../job/index.js';

/**
 * A limit on bytes per second that all threads of a copy share, without a lock: a clock that counts the bytes
 * which may have moved by now, and one word with the bytes that were handed out. Time that the system spent asleep is
 * not caught up.
 *
 *     byte 0    i64  bytes handed out
 *     byte 8    i32  epoch: odd while the caller's thread changes what follows
 *     byte 16   f64  the clock in bytes, as it was at ...
 *     byte 24   f64  ... this time, milliseconds
 *     byte 32   f64  bytes per millisecond; 0 for no limit
 *     byte 40   f64  1 while the clock runs, 0 while the copy is paused
 */
export const RATE_LIMIT_BYTES = 64;

const EPOCH = 2;
const [CLOCK, SINCE, RATE, RUNS] = [2, 3, 4, 5];

export class RateLimit {
  readonly #handedOut: BigInt64Array;
  readonly #words: Int32Array;
  readonly #numbers: Float64Array;

  /** One thread changes the rate and holds the clock; any may draw and look. */
  constructor(memory: SharedArrayBuffer, byteOffset: number) {
    this.#handedOut = new BigInt64Array(memory, byteOffset, 1);
    this.#words = new Int32Array(memory, byteOffset, RATE_LIMIT_BYTES / 4);
    this.#numbers = new Float64Array(memory, byteOffset, RATE_LIMIT_BYTES / 8);
  }

  get isSet(): boolean {
    return this.#numbers[RATE] > 0;
  }

  /** The longest request that spreads well over time, a power of two; Infinity without a limit. */
  get pieceSize(): number {
    return longestPiece(this.#numbers[RATE]);
  }

  /** `rate` in bytes per second; undefined for none. The clock goes on from where it is. */
  setRate(rate: number | undefined, now: number): void {
    this.#change(now, (rate ?? 0) / 1000, this.#numbers[RUNS]);
  }

  /** Lets the clock run, or stand while the copy is paused: what waits then must not go all at once. */
  run(runs: boolean, now: number): void {
    this.#change(now, this.#numbers[RATE], runs ? 1 : 0);
  }

  /** A ticket for so many bytes. */
  draw(bytes: number, now: number): number {
    const { clock, rate } = this.#read(now);
    const least = BigInt(Math.floor(earliestTicket(clock, rate)));
    for (;;) {
      const before = Atomics.load(this.#handedOut, 0);
      const ticket = before > least ? before : least;
      const after = ticket + BigInt(bytes);
      if (Atomics.compareExchange(this.#handedOut, 0, before, after) === before) {
        return Number(ticket);
      }
    }
  }

  /** Milliseconds until a ticket's turn, unless the rate changes: 0 or less when it has come. */
  wait(ticket: number, now: number): number {
    const { clock, rate } = this.#read(now);
    return timeUntil(ticket, clock, rate);
  }

  #read(now: number): { clock: number; rate: number } {
    for (;;) {
      const epoch = Atomics.load(this.#words, EPOCH);
      const [clock, since] = [this.#numbers[CLOCK], this.#numbers[SINCE]];
      const [rate, runs] = [this.#numbers[RATE], this.#numbers[RUNS]];
      if (epoch % 2 === 1 || Atomics.load(this.#words, EPOCH) !== epoch) continue;
      return { clock: clockAt(clock, since, now, rate * runs), rate };
    }
  }

  #change(now: number, rate: number, runs: number): void {
    const { clock, rate: before } = this.#read(now);
    const handedOut = Number(Atomics.load(this.#handedOut, 0));
    Atomics.add(this.#words, EPOCH, 1);
    this.#numbers[CLOCK] = clockAfterChange(clock, handedOut, before);
    this.#numbers[SINCE] = now;
    this.#numbers[RATE] = rate;
    this.#numbers[RUNS] = runs;
    Atomics.add(this.#words, EPOCH, 1);
  }
}
