import { Bitmap, type Range } from '../../bitmap/index.js';
import { alignDown, alignUp } from '../../util/index.js';

/** What is written as a whole takes a bit for so many bytes, what is written in part a bit for each byte of it. */
const UNIT = 4096;

/**
 * A set of bytes of a disk, exact to the byte. It only grows. A QEMU writes whole granules of its mirror, so the set has nothing in
 * part, and takes at most a bit for each unit; a client that writes a few bytes here and there costs a unit of memory each.
 */
export class WrittenBytes {
  readonly #size: number;
  readonly #whole: Bitmap;
  /** Which bytes of a unit are in the set, by the number of the unit, where not all are. */
  readonly #parts = new Map<number, Uint8Array>();

  /** @param size bytes of the disk */
  constructor(size: number) {
    this.#size = size;
    this.#whole = new Bitmap({ size, granularity: UNIT });
  }

  add(offset: number, length: number): void {
    const end = offset + length;
    const first = alignUp(offset, UNIT);
    const last = end === this.#size ? end : alignDown(end, UNIT);
    if (first >= last) {
      this.#addParts(offset, end);
      return;
    }
    this.#whole.set(first, last - first);
    this.#forgetParts(first, last);
    this.#addParts(offset, first);
    this.#addParts(last, end);
  }

  /** What of a range is not in the set, in order. */
  *missing(offset: number, length: number): Generator<Range> {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const from = this.#whole.nextZero(at, end);
      if (from === -1) return;
      const next = this.#whole.nextDirty(from, end);
      at = next === -1 ? end : next;
      yield* this.#missingInParts(from, at);
    }
  }

  free(): void {
    this.#whole.free();
    this.#parts.clear();
  }

  /** Units that are in the set in part; the range lies in one or two of them. */
  #addParts(offset: number, end: number): void {
    for (let at = offset; at < end; ) {
      const unit = Math.floor(at / UNIT);
      const start = unit * UNIT;
      const to = Math.min(end, start + UNIT);
      if (!this.#whole.get(start)) this.#addPart(unit, at - start, to - start);
      at = to;
    }
  }

  #addPart(unit: number, from: number, to: number): void {
    const bytes = Math.min(UNIT, this.#size - unit * UNIT);
    const marks = this.#parts.get(unit) ?? new Uint8Array(bytes);
    marks.fill(1, from, to);
    if (marks.includes(0)) {
      this.#parts.set(unit, marks);
      return;
    }
    this.#parts.delete(unit);
    this.#whole.set(unit * UNIT, bytes);
  }

  #forgetParts(from: number, to: number): void {
    if (this.#parts.size === 0) return;
    const [first, last] = [from / UNIT, Math.ceil(to / UNIT)];
    if (last - first < this.#parts.size) {
      for (let unit = first; unit < last; unit++) this.#parts.delete(unit);
      return;
    }
    for (const unit of [...this.#parts.keys()]) {
      if (unit >= first && unit < last) this.#parts.delete(unit);
    }
  }

  /** A range without whole units of the set. */
  *#missingInParts(offset: number, end: number): Generator<Range> {
    let from = offset;
    const units = [...this.#partsIn(offset, end)].sort(([a], [b]) => a - b);
    for (const [unit, marks] of units) {
      const start = unit * UNIT;
      const to = Math.min(end, start + marks.length);
      for (let at = Math.max(start, offset); at < to; at++) {
        if (marks[at - start] === 0) continue;
        if (at > from) yield { offset: from, length: at - from };
        from = at + 1;
      }
    }
    if (end > from) yield { offset: from, length: end - from };
  }

  *#partsIn(offset: number, end: number): Generator<readonly [number, Uint8Array]> {
    const [first, last] = [Math.floor(offset / UNIT), Math.ceil(end / UNIT)];
    if (this.#parts.size < last - first) {
      for (const part of this.#parts) if (part[0] >= first && part[0] < last) yield part;
      return;
    }
    for (let unit = first; unit < last; unit++) {
      const marks = this.#parts.get(unit);
      if (marks !== undefined) yield [unit, marks];
    }
  }
}
