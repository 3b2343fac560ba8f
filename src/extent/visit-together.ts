import type { ExtentList } from './extent-list.js';

/** Which part of the lists is visited; default all of it. */
export interface VisitPart {
  /** A byte that all of the lists speak of. Default: their first. */
  readonly from?: number;
  /** Stop after so many ranges. */
  readonly most?: number;
}

const ALL: VisitPart = {};

/**
 * Visits the range that all of these lists speak of, cut wherever one of them changes: lists of different
 * contexts break at different places and end at different ones. They must begin at one byte.
 *
 * @param size bytes of the device, behind which nothing is visited whatever the lists say.
 * @param visit takes a range and the flags of each list in it; the array is used again for the next range.
 * @returns the first byte that was not visited.
 */
export function visitTogether(
  lists: readonly ExtentList[],
  size: number,
  visit: (offset: number, length: number, flags: readonly number[]) => void,
  { from = lists[0].offset, most = Number.POSITIVE_INFINITY }: VisitPart = ALL,
): number {
  const end = Math.min(size, ...lists.map((list) => list.end));
  const indexes = lists.map((list) => (from < list.end ? list.indexOf(from) : list.count));
  const flags = lists.map(() => 0);
  let offset = from;
  for (let visited = 0; offset < end && visited < most; visited++) {
    let stop = end;
    for (let i = 0; i < lists.length; i++) {
      stop = Math.min(stop, lists[i].endAt(indexes[i]));
      flags[i] = lists[i].flagsAt(indexes[i]);
    }
    visit(offset, stop - offset, flags);
    for (let i = 0; i < lists.length; i++) if (lists[i].endAt(indexes[i]) === stop) indexes[i]++;
    offset = stop;
  }
  return offset;
}
