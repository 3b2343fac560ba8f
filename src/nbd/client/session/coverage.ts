/**
 * Which bytes of a read have arrived. Chunks nearly always come in order, which costs one number; what
 * comes out of order is kept as a short sorted list of islands behind it.
 *
 *     0 ......... contiguous      [island)     [island)           length
 */
export class Coverage {
  #contiguous = 0;
  /** Starts and ends of the islands, alternating and ascending. */
  #islands: number[] = [];

  /** All bytes from the start up to here have arrived. */
  get contiguous(): number {
    return this.#contiguous;
  }

  reset(): void {
    this.#contiguous = 0;
    if (this.#islands.length > 0) this.#islands = [];
  }

  /** Marks `length` bytes at `start`; false when one of them had arrived before, or memory ran out. */
  add(start: number, length: number): boolean {
    if (start === this.#contiguous) return this.#advance(start + length);
    return start > this.#contiguous && this.#insert(start, start + length);
  }

  /** In order; the islands are looked at, and only moved when the first one is reached. */
  #advance(end: number): boolean {
    const islands = this.#islands;
    if (islands.length > 0 && islands[0] < end) return false;
    this.#contiguous = end;
    if (islands[0] === end) {
      this.#contiguous = islands[1];
      islands.splice(0, 2);
    }
    return true;
  }

  #insert(start: number, end: number): boolean {
    const islands = this.#islands;
    const at = firstAtOrAfter(islands, start);
    // An odd position is inside an island; the next boundary must not come before our end.
    if (at % 2 === 1 && islands[at] !== start) return false;
    const position = at % 2 === 1 ? at + 1 : at;
    if (position < islands.length && islands[position] < end) return false;
    const joinsLeft = position > 0 && islands[position - 1] === start;
    const joinsRight = position < islands.length && islands[position] === end;
    if (joinsLeft && joinsRight) islands.splice(position - 1, 2);
    else if (joinsLeft) islands[position - 1] = end;
    else if (joinsRight) islands[position] = start;
    else islands.splice(position, 0, start, end);
    return islands.length <= 2 * MAX_ISLANDS;
  }
}

/** A server that scatters a reply wider than this is hostile: each island costs memory and time. */
const MAX_ISLANDS = 4096;

/** Index of the first value of a sorted list that is at least `value`. */
function firstAtOrAfter(sorted: readonly number[], value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
