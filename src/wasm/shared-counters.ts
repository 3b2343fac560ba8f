/** Bytes of one counter. */
export const COUNTER_BYTES = 8;

/** 146 years from the start of the clock, which a cell can still hold. */
const LATEST = 2n ** 62n;

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
    this.memory =
      typeof counters === 'number' ? new SharedArrayBuffer(counters * COUNTER_BYTES) : counters;
    this.#cells = new BigInt64Array(this.memory);
  }

  /** Adds to a counter, and returns what it was before. */
  add(index: number, amount: number): number {
    return Number(Atomics.add(this.#cells, index, BigInt(amount)));
  }

  /** A counter as it is now. */
  get(index: number): number {
    return Number(Atomics.load(this.#cells, index));
  }

  set(index: number, value: number): void {
    Atomics.store(this.#cells, index, BigInt(value));
  }

  /**
   * Takes the next `duration` nanoseconds of a road that one user has at a time, and returns the milliseconds until they
   * begin: 0 or less for at once. Time that nobody took is lost but for the last `burst` nanoseconds.
   */
  takeTurn(index: number, duration: number, burst: number): number {
    // The clock that all threads of a process share.
    const now = process.hrtime.bigint();
    const earliest = now - nanoseconds(burst);
    for (;;) {
      const free = Atomics.load(this.#cells, index);
      const begin = free > earliest ? free : earliest;
      const wanted = begin + nanoseconds(duration);
      const end = wanted < LATEST ? wanted : LATEST;
      if (Atomics.compareExchange(this.#cells, index, free, end) === free) {
        return Number(begin - now) / 1e6;
      }
    }
  }
}

function nanoseconds(time: number): bigint {
  return BigInt(Math.ceil(Math.min(time, Number(LATEST))));
}
