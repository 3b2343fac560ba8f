/**
 * Whole numbers that several threads count in, each by itself and without a lock. For what is one thing to its user and
 * several openings in fact, such as a limit that holds for all threads of a copy.
 */
export class SharedCounters {
  /** Hand this to another thread, which makes its own view of it. */
  readonly memory: SharedArrayBuffer;
  readonly #cells: BigInt64Array;

  /** @param counters how many there are, all 0 at first; or the memory of those of another thread. */
  constructor(counters: number | SharedArrayBuffer) {
    this.memory = typeof counters === 'number' ? new SharedArrayBuffer(counters * 8) : counters;
    this.#cells = new BigInt64Array(this.memory);
  }

  /** Adds to a counter, and returns what it was before. */
  add(index: number, amount: number): number {
    return Number(Atomics.add(this.#cells, index, BigInt(amount)));
  }

  /**
   * Takes the next `duration` nanoseconds of a road that one user has at a time, and returns the milliseconds until they
   * begin: 0 or less for at once. Time that nobody took is lost but for the last `burst` nanoseconds.
   */
  takeTurn(index: number, duration: number, burst: number): number {
    // The clock that all threads of a process share.
    const now = process.hrtime.bigint();
    const earliest = now - BigInt(Math.ceil(burst));
    for (;;) {
      const free = Atomics.load(this.#cells, index);
      const begin = free > earliest ? free : earliest;
      const end = begin + BigInt(Math.ceil(duration));
      if (Atomics.compareExchange(this.#cells, index, free, end) === free) {
        return Number(begin - now) / 1e6;
      }
    }
  }
}
