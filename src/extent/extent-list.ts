/** A byte range with one status (or, in other contexts than allocation, one value of flags). */
export interface Extent {
  /** First byte. */
  readonly offset: number;
  /** Bytes; above 0. */
  readonly length: number;
  /** {@link Status} bits, or what the context says. */
  readonly flags: number;
}

/** So few that V8 holds them in its own heap: longer ones have memory of their own, which costs more than most answers. */
const FIRST_CAPACITY = 8;

/**
 * A run of adjoining extents, in order and without a gap, held as two columns: a server may send a
 * million of them in one reply, and an object for each would cost more than the answer is worth.
 * Neighbours with equal flags become one.
 */
export class ExtentList implements Iterable<Extent> {
  /** First byte that the list speaks of. */
  readonly offset: number;
  #end: number;
  #count = 0;
  #ends: Float64Array = new Float64Array(FIRST_CAPACITY);
  #flags: Float64Array = new Float64Array(FIRST_CAPACITY);

  constructor(offset: number) {
    this.offset = offset;
    this.#end = offset;
  }

  /** A list of one extent. */
  static of(offset: number, length: number, flags: number): ExtentList {
    const list = new ExtentList(offset);
    list.push(length, flags);
    return list;
  }

  /** Extents in the list. */
  get count(): number {
    return this.#count;
  }

  /** First byte behind the last extent. */
  get end(): number {
    return this.#end;
  }

  /** Adds `length` bytes with `flags` behind the last extent; a length of 0 adds nothing. */
  push(length: number, flags: number): void {
    if (length === 0) return;
    this.#end += length;
    if (this.#count > 0 && this.#flags[this.#count - 1] === flags) {
      this.#ends[this.#count - 1] = this.#end;
      return;
    }
    if (this.#count === this.#ends.length) this.#grow();
    this.#ends[this.#count] = this.#end;
    this.#flags[this.#count] = flags;
    this.#count++;
  }

  /** Adds all of another list, which must begin where this one ends. */
  append(other: ExtentList): void {
    if (other.offset !== this.#end) {
      throw new RangeError(
        `a list from ${other.offset} cannot follow one that ends at ${this.#end}`,
      );
    }
    for (let i = 0; i < other.#count; i++)
      this.push(other.endAt(i) - other.startAt(i), other.#flags[i]);
  }

  /** First byte of extent `index`. */
  startAt(index: number): number {
    return index === 0 ? this.offset : this.#ends[index - 1];
  }

  /** First byte behind extent `index`. */
  endAt(index: number): number {
    return this.#ends[index];
  }

  /** Flags of extent `index`. */
  flagsAt(index: number): number {
    return this.#flags[index];
  }

  /** Index of the extent that holds byte `offset`; the byte must be inside the list. */
  indexOf(offset: number): number {
    if (offset < this.offset || offset >= this.#end) {
      throw new RangeError(`offset ${offset} is outside the list, ${this.offset} to ${this.#end}`);
    }
    let low = 0;
    let high = this.#count - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ends[middle] > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  *[Symbol.iterator](): Iterator<Extent> {
    for (let i = 0; i < this.#count; i++) {
      const offset = this.startAt(i);
      yield { offset, length: this.#ends[i] - offset, flags: this.#flags[i] };
    }
  }

  #grow(): void {
    this.#ends = doubled(this.#ends);
    this.#flags = doubled(this.#flags);
  }
}

function doubled(column: Float64Array): Float64Array {
  const larger = new Float64Array(column.length * 2);
  larger.set(column);
  return larger;
}
