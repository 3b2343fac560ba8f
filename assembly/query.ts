/**
 * What a bitmap answers: the reading half of bitmap.ts, and the claim, which reads and then clears.
 */
import {
  ARENA_FULL, NONE, OUT_OF_RANGE,
} from "./layout";
import {
  lockBitmap, granuleFrom, granuleUpTo, granulesOf, heightOf, unlockBitmap, paintRoot, rootOf,
  shiftOfBitmap, sizeOf,
} from "./bitmap";
import { reserve } from "./nodes";
import { paintNeeds } from "./paint";
import { countRange, find, isDirty, select } from "./search";
import { WALK_BYTES, finishWalk, startWalk, walkSlot } from "./walk";

export function bitmapGet(h: usize, offset: f64): i32 {
  lockBitmap(h);
  let result = OUT_OF_RANGE;
  if (offset < <f64><i64>sizeOf(h)) {
    result = i32(isDirty(rootOf(h), heightOf(h), <u64><i64>offset >> shiftOfBitmap(h)));
  }
  unlockBitmap(h);
  return result;
}

/** First byte from `offset` up to `end` that is dirty, or clean. */
export function bitmapFind(h: usize, offset: f64, end: f64, dirty: bool): f64 {
  lockBitmap(h);
  const found = findLocked(h, <i64>offset, <i64>min(end, <f64><i64>sizeOf(h)), dirty);
  unlockBitmap(h);
  return <f64>found;
}

function findLocked(h: usize, offset: i64, end: i64, dirty: bool): i64 {
  if (offset >= end) return NONE;
  const shift = shiftOfBitmap(h);
  const granule = find(rootOf(h), heightOf(h), <u64>offset >> shift, dirty);
  if (granule < 0) return NONE;
  const found = max(offset, granule << shift);
  return found < end ? found : NONE;
}

/** The next dirty run of at most `maxLength` bytes: 1 and offset and length at `out`, or 0. */
export function bitmapArea(h: usize, offset: f64, end: f64, maxLength: f64, out: usize): i32 {
  lockBitmap(h);
  const stop = <i64>min(end, <f64><i64>sizeOf(h));
  const start = findLocked(h, <i64>offset, stop, true);
  if (start >= 0) {
    const limit = min(stop - start, <i64>maxLength) + start;
    const clean = findLocked(h, start, limit, false);
    store<f64>(out, <f64>start);
    store<f64>(out, <f64>((clean < 0 ? limit : clean) - start), 8);
  }
  unlockBitmap(h);
  return i32(start >= 0);
}

/** Whether the byte at `offset` is dirty; and, at `out`, for how many bytes the same is true. */
export function bitmapStatus(h: usize, offset: f64, length: f64, out: usize): i32 {
  lockBitmap(h);
  let result = OUT_OF_RANGE;
  if (offset + length <= <f64><i64>sizeOf(h)) {
    const start = <i64>offset;
    const end = start + <i64>length;
    const dirty = isDirty(rootOf(h), heightOf(h), <u64>start >> shiftOfBitmap(h));
    const change = findLocked(h, start, end, !dirty);
    store<f64>(out, <f64>((change < 0 ? end : change) - start));
    result = i32(dirty);
  }
  unlockBitmap(h);
  return result;
}

/**
 * Writes the dirty runs from `from` up to `end`, clipped to both, as pairs of offset and length to
 * `out` (which has WALK_BYTES in front for the walker). Returns their number, at most `pairs`.
 */
export function bitmapRuns(h: usize, from: f64, end: f64, walk: usize, pairs: u32): u32 {
  lockBitmap(h);
  const stop = min(end, <f64><i64>sizeOf(h));
  let count: u32 = 0;
  if (from < stop) {
    const shift = shiftOfBitmap(h);
    const last = (<u64><i64>stop - 1 >> shift) + 1;
    count = walkRange(h, <u64><i64>from >> shift, last, walk, pairs);
    toLengths(walk + WALK_BYTES, count, from, stop);
  }
  unlockBitmap(h);
  return count;
}

function walkRange(h: usize, from: u64, to: u64, walk: usize, pairs: u32): u32 {
  startWalk(walk, pairs, <f64>(<i64>1 << shiftOfBitmap(h)));
  walkSlot(walk, rootOf(h), heightOf(h), 0, from, to);
  return finishWalk(walk, to);
}

/**
 * Turns starts and ends into offsets and lengths. Only the outermost two can reach over `from` and
 * `end`.
 */
function toLengths(out: usize, count: u32, from: f64, end: f64): void {
  if (count == 0) return;
  const last = out + (<usize>count << 4) - 8;
  store<f64>(out, max(load<f64>(out), from));
  store<f64>(last, min(load<f64>(last), end));
  for (let at = out; at < last; at += 16) {
    store<f64>(at, load<f64>(at, 8) - load<f64>(at), 8);
  }
}

/** Dirty bytes from `offset` on for `length` bytes. */
export function bitmapCountIn(h: usize, offset: f64, length: f64): f64 {
  lockBitmap(h);
  let result = <f64>OUT_OF_RANGE;
  if (offset + length <= <f64><i64>sizeOf(h)) {
    result = <f64>countBytes(h, <i64>offset, <i64>(offset + length));
  }
  unlockBitmap(h);
  return result;
}

function countBytes(h: usize, offset: i64, end: i64): i64 {
  if (offset >= end) return 0;
  const shift = shiftOfBitmap(h);
  const first = <u64>offset >> shift;
  const last = <u64>(end - 1) >> shift;
  const root = rootOf(h);
  let bytes = <i64>(countRange(root, heightOf(h), first, last + 1) << shift);
  if (isDirty(root, heightOf(h), first)) bytes -= offset - <i64>(first << shift);
  if (isDirty(root, heightOf(h), last)) bytes -= <i64>(last + 1 << shift) - end;
  return bytes;
}

/** Offset of the dirty granule that has exactly `rank` dirty ones before it, or NONE. */
export function bitmapSelect(h: usize, rank: f64): f64 {
  lockBitmap(h);
  let result: f64 = NONE;
  const root = rootOf(h);
  const height = heightOf(h);
  if (rank < <f64><i64>countRange(root, height, 0, granulesOf(h))) {
    result = <f64><i64>(select(root, height, <u64><i64>rank) << shiftOfBitmap(h));
  }
  unlockBitmap(h);
  return result;
}

/**
 * Takes the lowest dirty runs whose granules lie wholly between `from` and `end`: at most `pairs`
 * runs and `maxBytes` bytes (at least one granule). Writes them like bitmapRuns and makes them
 * clean, all under one lock. Between the runs everything is clean, so that one stroke from the
 * first to the last does it.
 */
export function bitmapClaim(
  h: usize, from: f64, end: f64, walk: usize, pairs: u32, maxBytes: f64,
): i32 {
  lockBitmap(h);
  const result = claimLocked(h, <u64><i64>from, <u64><i64>end, walk, pairs, <u64><i64>maxBytes);
  unlockBitmap(h);
  return result;
}

function claimLocked(
  h: usize, from: u64, end: u64, walk: usize, pairs: u32, maxBytes: u64,
): i32 {
  const first = granuleFrom(h, from);
  const last = granuleUpTo(h, end);
  if (first >= last) return 0;
  if (!reserve(h, paintNeeds(heightOf(h)))) return ARENA_FULL;
  const shift = shiftOfBitmap(h);
  const budget = max(maxBytes >> shift, 1);
  // What lies behind the last granule that the budget reaches need not be listed.
  const reach = reachOf(h, first, last, budget);
  const count = walkRange(h, first, reach, walk, pairs);
  if (count == 0) return 0;
  const out = walk + WALK_BYTES;
  const low = <u64><i64>load<f64>(out) >> shift;
  const high = <u64><i64>load<f64>(out + (<usize>count << 4) - 8) >> shift;
  toLengths(out, count, 0, <f64><i64>sizeOf(h));
  paintRoot(h, low, high, false);
  return <i32>count;
}

/** First granule behind the `budget`-th dirty one from `first` on, or `last`. */
function reachOf(h: usize, first: u64, last: u64, budget: u64): u64 {
  const root = rootOf(h);
  const height = heightOf(h);
  const before = countRange(root, height, 0, first);
  const total = countRange(root, height, first, last);
  return total <= budget ? last : select(root, height, before + budget - 1) + 1;
}
