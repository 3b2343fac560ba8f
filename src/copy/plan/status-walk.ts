/**
 * Walks the status of a device from one end of a range to the other: in the largest pieces that the device
 * answers, several queries in flight.
 *
 * Allocation status is a hint that saves work, so it degrades: what a device cannot or will not tell is
 * taken for the worst that it may be. A lost connection is no such hint and ends the walk.
 */

import type { BlockDevice } from '../../block/index.js';
import { isAborted, LacunaError } from '../../errors/index.js';
import {
  DIRTY,
  type ExtentList,
  isDirtyContext,
  type Range,
  Status,
  visitTogether,
} from '../../extent/index.js';
import { Lanes } from '../../util/index.js';

/** Status queries in flight. */
const QUERIES = 16;

/** A query is never made shorter than this, however little the answers cover. */
const SHORTEST_QUERY = 128 * 1024 * 1024;

/** Refusals in a row after which the rest is taken for data unasked. */
const MOST_REFUSALS = 64;

/** Answers that end early, after which it is judged whether asking pays. */
const ENOUGH_SHORT = 4096;

/** Bytes that such an answer must tell of on average: reading so many costs about as much as asking. */
const LEAST_TOLD = 32 * 1024;

export interface StatusWalk {
  device: BlockDevice;
  /** What to ask about; read only as far as the walk has come. */
  ranges: Iterable<Range>;
  contexts: readonly string[];
  signal?: AbortSignal | undefined;
  /** Waits before each question, as long as none may be asked. */
  mayAsk?: (() => Promise<void>) | undefined;
  /**
   * Takes one extent: its range and the flags of each context, in the order asked. Extents do not come in
   * order, and the array is used again for the next one.
   */
  visit(offset: number, length: number, flags: readonly number[]): void;
  /** Told why some of the ranges are taken for data: a query was refused, or answers tell next to nothing. */
  refused?(error: LacunaError): void;
}

/** Visits every byte of the ranges exactly once. */
export async function walkStatus(walk: StatusWalk): Promise<void> {
  const queries = new Queries(walk.ranges);
  const step = async () => {
    await walk.mayAsk?.();
    const query = queries.take();
    if (query === undefined) return false;
    const lists = queries.gaveUp ? undefined : await answer(walk, query);
    if (lists === undefined) degrade(walk, queries.refused(query));
    else if (!queries.answered(query, visitTogether(lists, walk.device.size, walk.visit))) {
      walk.refused?.(tellsTooLittle(walk.device));
    }
    return true;
  };
  // The first answer shows how far one query reaches, and so whether there is anything to share out.
  if (await step()) await new Lanes().run({ count: QUERIES, step });
}

/** Cuts the ranges into queries as long as the device answers whole. */
class Queries {
  readonly #ranges: Iterator<Range>;
  readonly #rest: Range[] = [];
  #refusals = 0;
  #longest = Number.MAX_SAFE_INTEGER;
  #short = 0;
  #shortBytes = 0;
  #tellsTooLittle = false;

  constructor(ranges: Iterable<Range>) {
    this.#ranges = ranges[Symbol.iterator]();
  }

  /** The device has refused so often, or tells so little at a time, that it is not asked any more. */
  get gaveUp(): boolean {
    return this.#refusals >= MOST_REFUSALS || this.#tellsTooLittle;
  }

  take(): Range | undefined {
    const range = this.#rest.pop() ?? this.#nextRange();
    if (range === undefined || range.length <= this.#longest) return range;
    this.#leave(range.offset + this.#longest, range.offset + range.length);
    return { offset: range.offset, length: this.#longest };
  }

  /**
   * Learns from an answer that reached to `end`, and asks for the rest later. False where it is the one that
   * shows that asking does not pay.
   */
  answered(query: Range, end: number): boolean {
    if (this.#refusals < MOST_REFUSALS) this.#refusals = 0;
    const covered = end - query.offset;
    if (covered >= query.length) {
      this.#longest = Math.min(Number.MAX_SAFE_INTEGER, this.#longest * 2);
      return true;
    }
    this.#longest = Math.max(SHORTEST_QUERY, covered);
    this.#leave(end, query.offset + query.length);
    this.#short++;
    this.#shortBytes += covered;
    if (this.gaveUp || this.#short < ENOUGH_SHORT) return true;
    this.#tellsTooLittle = this.#shortBytes < this.#short * LEAST_TOLD;
    return !this.#tellsTooLittle;
  }

  /**
   * Gives up on a piece of a query that was refused and leaves the rest for later: one fault must not turn
   * a terabyte of holes into data. A device that refuses time after time is not asked any more.
   */
  refused(query: Range): Range {
    this.#refusals++;
    if (this.gaveUp) {
      this.#longest = Number.MAX_SAFE_INTEGER;
      return query;
    }
    if (query.length <= SHORTEST_QUERY) return query;
    this.#longest = SHORTEST_QUERY;
    this.#leave(query.offset + SHORTEST_QUERY, query.offset + query.length);
    return { offset: query.offset, length: SHORTEST_QUERY };
  }

  #leave(from: number, end: number): void {
    this.#rest.push({ offset: from, length: end - from });
  }

  #nextRange(): Range | undefined {
    const { value, done } = this.#ranges.next();
    return done ? undefined : value;
  }
}

/** Makes one query; undefined where the device refused. */
async function answer(walk: StatusWalk, query: Range): Promise<ExtentList[] | undefined> {
  const { device, contexts, signal } = walk;
  try {
    const options = { contexts, ...(signal && { signal }) };
    return await device.someExtents(query.offset, query.length, options);
  } catch (error) {
    if (!isRefusal(error)) throw error;
    walk.refused?.(error);
    return undefined;
  }
}

function tellsTooLittle({ name }: BlockDevice): LacunaError {
  const message = `${name} tells of less than ${LEAST_TOLD} bytes in one answer, which costs more than reading them`;
  return new LacunaError('ERR_DEVICE_IO', message, { device: name });
}

/** Takes a range of unknown status for the worst that it may be. */
function degrade(walk: StatusWalk, { offset, length }: Range): void {
  walk.visit(offset, length, walk.contexts.map(worstOf));
}

/**
 * The device answered, but with a no, or with what makes no sense: as opposed to being gone, or closed. Where a
 * server's nonsense has ended the connection, whoever uses it next is told.
 */
function isRefusal(error: unknown): error is LacunaError {
  if (!(error instanceof LacunaError) || isAborted(error)) return false;
  return (
    error.code === 'ERR_NBD_REMOTE' ||
    error.code === 'ERR_NBD_PROTOCOL' ||
    error.code === 'ERR_DEVICE_IO' ||
    error.code === 'ERR_DEVICE_UNSUPPORTED'
  );
}

/** The flags that make nobody skip anything. */
function worstOf(context: string): number {
  return isDirtyContext(context) ? DIRTY : Status.data;
}
