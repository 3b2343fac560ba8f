import { ExtentList, Status } from '../../../extent/index.js';
import type { Capabilities, Driver, Limits } from '../../contract/index.js';
import type { MemoryDescription } from './description.js';

const PAGE = 64 * 1024;
const GIB = 1024 ** 3;
const HOLE = Status.hole | Status.zero;

/**
 * Sparse memory: pages that hold something but the zeroes they began with. A petabyte of nothing costs
 * nothing, and whatever looks at a range visits the pages that are there, not the places where one could be.
 *
 * It has no description: another opening could not see the same bytes.
 */
export class MemoryDriver implements Driver {
  readonly name = 'memory';
  readonly size: number;
  readonly limits: Limits;
  readonly capabilities: Capabilities = {
    write: true,
    zero: true,
    fastZero: true,
    discard: true,
    flush: true,
    contexts: ['base:allocation'],
    exactStatus: true,
    multiConnection: false,
    knownZero: true,
  };
  readonly #pages = new Map<number, Uint8Array>();

  constructor({ size }: Pick<MemoryDescription, 'size'>) {
    this.size = size;
    this.limits = {
      minimum: 1,
      preferred: PAGE,
      maximum: GIB,
      maximumZero: Number.MAX_SAFE_INTEGER,
      zeroAlignment: PAGE,
      discardAlignment: PAGE,
    };
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    for (const { index, from, to, at } of pieces(offset, target.byteLength)) {
      const page = this.#pages.get(index);
      if (page === undefined) target.fill(0, at, at + to - from);
      else target.set(page.subarray(from, to), at);
    }
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    for (const { index, from, to, at } of pieces(offset, source.byteLength)) {
      let page = this.#pages.get(index);
      if (page === undefined) {
        page = new Uint8Array(PAGE);
        this.#pages.set(index, page);
      }
      page.set(source.subarray(at, at + to - from), from);
    }
  }

  async zero(offset: number, length: number): Promise<void> {
    const end = offset + length;
    for (const index of this.#present(offset, end)) {
      const start = index * PAGE;
      const from = Math.max(0, offset - start);
      const to = Math.min(PAGE, end - start);
      if (to - from === PAGE || (from === 0 && end === this.size)) this.#pages.delete(index);
      else this.#pages.get(index)!.fill(0, from, to);
    }
  }

  discard(offset: number, length: number): Promise<void> {
    return this.zero(offset, length);
  }

  async flush(): Promise<void> {}

  async extents(
    offset: number,
    length: number,
    contexts: readonly string[],
  ): Promise<ExtentList[]> {
    const end = offset + length;
    const list = new ExtentList(offset);
    for (const index of this.#present(offset, end)) {
      const start = Math.max(offset, index * PAGE);
      list.push(start - list.end, HOLE);
      list.push(Math.min(end, (index + 1) * PAGE) - start, Status.data);
    }
    list.push(end - list.end, HOLE);
    return contexts.map(() => list);
  }

  async close(): Promise<void> {
    this.#pages.clear();
  }

  /** The pages in a range, in order: found by number or by looking through all, whichever is less work. */
  #present(offset: number, end: number): number[] {
    const first = Math.floor(offset / PAGE);
    const last = Math.floor((end - 1) / PAGE);
    if (last - first >= this.#pages.size) {
      const inside = [...this.#pages.keys()].filter((index) => index >= first && index <= last);
      return inside.sort((a, b) => a - b);
    }
    const present: number[] = [];
    for (let index = first; index <= last; index++) {
      if (this.#pages.has(index)) present.push(index);
    }
    return present;
  }
}

/** Cuts a range at page borders; `at` is where a piece begins in the caller's buffer. */
function* pieces(offset: number, length: number) {
  for (let at = 0; at < length; ) {
    const index = Math.floor((offset + at) / PAGE);
    const from = offset + at - index * PAGE;
    const to = Math.min(PAGE, from + length - at);
    yield { index, from, to, at };
    at += to - from;
  }
}
