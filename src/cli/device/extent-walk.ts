import type { BlockDevice, Range } from '../../block/index.js';
import { throwIfAborted } from '../../errors/index.js';
import { type ExtentList, visitTogether } from '../../extent/index.js';
import { joinSignals } from '../../util/index.js';

/** A range in which every context that was asked for has one value. */
export interface StatusRange {
  readonly offset: number;
  readonly length: number;
  /** The flags of each context, in the order asked. */
  readonly flags: readonly number[];
}

export interface WalkOptions {
  contexts: readonly string[];
  /** What is walked. Default: the whole device. */
  range?: Range;
  signal?: AbortSignal;
}

type Walked = Pick<BlockDevice, 'size' | 'someExtents'>;

/** Ranges handed out at once: few enough that they die young, or the collector has to move each of them. */
const BATCH = 1024;

/**
 * Tells the status of a device, or of a range of it, from its first byte to its last, in batches: one answer of the
 * device may speak of a million extents, or of less than was asked. Neighbours that are alike are one
 * range, even where two answers meet.
 */
export async function* walkExtents(
  device: Walked,
  options: WalkOptions,
): AsyncGenerator<StatusRange[]> {
  let last: StatusRange | undefined;
  const { offset, length } = options.range ?? { offset: 0, length: device.size };
  const end = offset + length;
  for await (const lists of answersOf(device, { ...options, offset, end })) {
    for (const ranges of batchesOf(lists, end)) {
      throwIfAborted(options.signal);
      if (last !== undefined) join(last, ranges);
      last = ranges.pop();
      if (ranges.length > 0) yield ranges;
    }
  }
  if (last !== undefined) yield [last];
}

/** The device's answers in order. While one is looked at, the next is under way. */
async function* answersOf(
  device: Walked,
  { contexts, signal, offset: start, end: stop }: WalkOptions & { offset: number; end: number },
): AsyncGenerator<ExtentList[]> {
  throwIfAborted(signal);
  const leaving = new AbortController();
  const joined = joinSignals(signal, leaving.signal);
  const ask = (offset: number): Promise<ExtentList[]> => {
    const answer = device.someExtents(offset, stop - offset, {
      contexts,
      signal: joined.signal,
    });
    // It is thrown when it is this answer's turn; until then nobody listens.
    answer.catch(() => {});
    return answer;
  };
  try {
    for (let next = start < stop ? ask(start) : undefined; next !== undefined; ) {
      const lists = await next;
      const end = endOf(lists, stop);
      next = end < stop ? ask(end) : undefined;
      yield lists;
    }
  } finally {
    // A caller that stops early does not wait for an answer that nobody wants.
    leaving.abort();
    joined.release();
  }
}

/** The first byte that an answer tells nothing of. */
function endOf(lists: readonly ExtentList[], size: number): number {
  return Math.min(size, ...lists.map((list) => list.end));
}

/** The answers of several contexts as ranges in which none of them changes. */
function* batchesOf(lists: readonly ExtentList[], size: number): Generator<StatusRange[]> {
  const end = endOf(lists, size);
  const alone = lists.length === 1 ? new Map<number, readonly number[]>() : undefined;
  for (let from = lists[0].offset; from < end; ) {
    const ranges: StatusRange[] = [];
    const add = (offset: number, length: number, flags: readonly number[]) => {
      ranges.push({ offset, length, flags: alone ? valuesOf(alone, flags[0]) : [...flags] });
    };
    from = visitTogether(lists, size, add, { from, most: BATCH });
    yield ranges;
  }
}

/** One array for each value, not for each extent: there may be a million of those. */
function valuesOf(known: Map<number, readonly number[]>, value: number): readonly number[] {
  const values = known.get(value) ?? [value];
  known.set(value, values);
  return values;
}

/** Puts `last` in front of `ranges`, as part of their first where the two are alike. */
function join(last: StatusRange, ranges: StatusRange[]): void {
  const [first] = ranges;
  const alike = first.flags.every((flags, i) => flags === last.flags[i]);
  if (!alike) ranges.unshift(last);
  else ranges[0] = { ...last, length: last.length + first.length };
}
