/** The ranges that a copy left out because they failed and the caller had allowed it. */
import type { LacunaError } from '../../errors/index.js';
import type { LeftOutRange, Side } from '../options/index.js';

/** More ranges than this are only counted: a disk may be bad all over. */
const MOST_RANGES = 1000;

/** Ranges of both sides in order, neighbours merged. Plain data in and out, so that threads can send theirs. */
export class LeftOut {
  readonly #ranges: LeftOutRange[] = [];
  #more = 0;

  get ranges(): readonly LeftOutRange[] {
    return this.#ranges;
  }

  /** Ranges that did not fit. */
  get more(): number {
    return this.#more;
  }

  add(side: Side, offset: number, length: number, error: LacunaError): void {
    const { code, message, errno } = error;
    const told = { code, message, ...(errno !== undefined && { errno }) };
    this.#insert({ side, offset, length, error: told });
  }

  merge(ranges: readonly LeftOutRange[], more: number): void {
    for (const range of ranges) this.#insert(range);
    this.#more += more;
  }

  #insert(range: LeftOutRange): void {
    const ranges = this.#ranges;
    const at = this.#placeOf(range);
    const from = at > 0 && touches(ranges[at - 1], range) ? at - 1 : at;
    let joined = range;
    let end = from;
    for (; end < ranges.length && (end < at || touches(joined, ranges[end])); end++) {
      // What was there came first, so its failure did.
      joined = join(joined, ranges[end], end === from ? ranges[end].error : joined.error);
    }
    if (end > from || ranges.length < MOST_RANGES) ranges.splice(from, end - from, joined);
    else this.#more++;
  }

  /** Where a range belongs: the index of the first one behind it. */
  #placeOf(range: LeftOutRange): number {
    let [low, high] = [0, this.#ranges.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (isBefore(this.#ranges[middle], range)) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function isBefore(a: LeftOutRange, b: LeftOutRange): boolean {
  return a.side === b.side ? a.offset < b.offset : a.side < b.side;
}

/** Whether nothing lies between a range and the one behind it. */
function touches(a: LeftOutRange, b: LeftOutRange): boolean {
  return a.side === b.side && a.offset + a.length >= b.offset;
}

function join(a: LeftOutRange, b: LeftOutRange, error: LeftOutRange['error']): LeftOutRange {
  const offset = Math.min(a.offset, b.offset);
  const end = Math.max(a.offset + a.length, b.offset + b.length);
  return { side: a.side, offset, length: end - offset, error };
}
