/** A byte range that a request holds, or waits for, in a {@link RangeLock}. */
export class Hold {
  readonly start: number;
  readonly end: number;
  readonly alone: boolean;
  /** Settles when the range is granted; undefined where it was granted at once. */
  ready?: Promise<void>;
  #released?: Promise<void>;
  #settle?: () => void;

  constructor(start: number, end: number, alone: boolean) {
    this.start = start;
    this.end = end;
    this.alone = alone;
  }

  /** Settles when the range is released. Made on demand: most holds are never waited for. */
  get released(): Promise<void> {
    this.#released ??= new Promise((resolve) => {
      this.#settle = resolve;
    });
    return this.#released;
  }

  /** Lets those go on that wait for this hold. Only the lock calls it. */
  release(): void {
    this.#settle?.();
  }
}

/**
 * Keeps requests that change part of a block away from each other, and from whole writes of that block.
 *
 * A read-modify-write holds its block alone. Whole writes share, because two of them never undo one another.
 * Whoever comes later waits for every conflicting request that came before, so nobody starves and nothing
 * can deadlock. The cost is linear in the requests in flight, of which there are a few dozen at most.
 */
export class RangeLock {
  readonly #holds: Hold[] = [];

  /** Settles when every range that is held now has been released. */
  get idle(): Promise<unknown> {
    return Promise.all(this.#holds.map((hold) => hold.released));
  }

  /** Takes a place in the queue for `start` to `end`; wait for `ready` where it is set, then `release`. */
  acquire(start: number, end: number, alone: boolean): Hold {
    const hold = new Hold(start, end, alone);
    let before: Promise<void>[] | undefined;
    for (const other of this.#holds) {
      const conflicts = (alone || other.alone) && other.start < end && start < other.end;
      if (!conflicts) continue;
      before ??= [];
      before.push(other.released);
    }
    if (before !== undefined) hold.ready = Promise.all(before).then(() => undefined);
    this.#holds.push(hold);
    return hold;
  }

  /** Gives the range up, granted or not. */
  release(hold: Hold): void {
    const index = this.#holds.indexOf(hold);
    const last = this.#holds.pop()!;
    if (last !== hold) this.#holds[index] = last;
    hold.release();
  }
}
