/** The first byte that differs, as far as the threads of a comparison have found out together. */
export class FirstDifference {
  /** Post this to a worker, which makes its own over it. */
  readonly memory: SharedArrayBuffer;
  readonly #cell: BigInt64Array;

  constructor(memory?: SharedArrayBuffer) {
    this.memory = memory ?? new SharedArrayBuffer(8);
    this.#cell = new BigInt64Array(this.memory);
    if (memory === undefined) this.#cell[0] = BigInt(Number.MAX_SAFE_INTEGER);
  }

  /** Its offset; the largest safe integer while there is none. */
  get offset(): number {
    return Number(Atomics.load(this.#cell, 0));
  }

  get found(): boolean {
    return this.offset !== Number.MAX_SAFE_INTEGER;
  }

  /** Tells of a difference; one that lies behind another counts for nothing. */
  note(offset: number): void {
    const told = BigInt(offset);
    for (let known = Atomics.load(this.#cell, 0); told < known; ) {
      const before = Atomics.compareExchange(this.#cell, 0, known, told);
      if (before === known) return;
      known = before;
    }
  }
}
