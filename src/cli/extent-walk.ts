import type { Device } from '../block/index.js';
import { throwIfAborted } from '../errors/index.js';
import { type ExtentList, visitTogether } from '../extent/index.js';

/** A range in which every context that was asked for has one value. */
export interface StatusRange {
  readonly offset: number;
  readonly length: number;
  /** The flags of each context, in the order asked. */
  readonly flags: readonly number[];
}

export interface WalkOptions {
  contexts: readonly string[];
  signal?: AbortSignal;
}

/**
 * Tells the status of a whole device from its first byte to its last, in batches: one answer of the
 * device may speak of a million extents, or of less than was asked. Neighbours that are alike are one
 * range, even where two answers meet.
 */
export async function* walkExtents(
  device: Pick<Device, 'size' | 'someExtents'>,
  options: WalkOptions,
): AsyncGenerator<StatusRange[]> {
  const { contexts, signal } = options;
  let offset = 0;
  let last: StatusRange | undefined;
  while (offset < device.size) {
    throwIfAborted(signal);
    const lists = await device.someExtents(offset, device.size - offset, {
      contexts,
      ...(signal && { signal }),
    });
    const ranges = cutTogether(lists, device.size);
    offset = endOf(ranges[ranges.length - 1]);
    if (last !== undefined) join(last, ranges);
    last = ranges.pop();
    if (ranges.length > 0) yield ranges;
  }
  if (last !== undefined) yield [last];
}

/** The answers of several contexts as ranges in which none of them changes. */
function cutTogether(lists: readonly ExtentList[], size: number): StatusRange[] {
  const ranges: StatusRange[] = [];
  const alone = lists.length === 1 ? new Map<number, readonly number[]>() : undefined;
  visitTogether(lists, size, (offset, length, flags) => {
    ranges.push({ offset, length, flags: alone ? valuesOf(alone, flags[0]) : [...flags] });
  });
  return ranges;
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

function endOf(range: StatusRange): number {
  return range.offset + range.length;
}
