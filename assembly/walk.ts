/**
 * Listing runs. The walk writes the places where the state changes, one after the other: start,
 * end, start, end. That a start follows an end needs no branch, it is so by counting; and a full
 * buffer always ends behind an end, so that the next walk can go on from there.
 */
import {
  DIRTY, CLEAN, LEAF_BITS, TAG_NODE, nodeOf, runCount, runEnd, runStart, shiftOf, tagOf,
} from "./slot";
import { maskOf, wordAt } from "./leaf";

/**
 * The walker's place, kept in front of its output: where to write next, and where the room ends.
 */
export const WALK_BYTES: u32 = 16;
const NEXT: u32 = 0;
const LIMIT: u32 = 4;
const GRANULARITY: u32 = 8;

/**
 * Begins a walk that writes at most `pairs` pairs of f64, scaled by `granularity`, behind its own
 * state.
 */
export function startWalk(walk: usize, pairs: u32, granularity: f64): void {
  store<u32>(walk, <u32>walk + WALK_BYTES, NEXT);
  store<u32>(walk, <u32>walk + WALK_BYTES + (pairs << 4), LIMIT);
  store<f64>(walk, granularity, GRANULARITY);
}

/** Ends a walk at granule `to`; returns the number of pairs. */
export function finishWalk(walk: usize, to: u64): u32 {
  if (isOpen(walk)) edge(walk, to);
  return (load<u32>(walk, NEXT) - <u32>walk - WALK_BYTES) >> 4;
}

// @ts-ignore: decorator
@inline
function isOpen(walk: usize): bool {
  return (load<u32>(walk, NEXT) - <u32>walk & 8) != 0;
}

/** Writes one change of state; false when there is no room. */
function edge(walk: usize, at: u64): bool {
  const next = load<u32>(walk, NEXT);
  if (next == load<u32>(walk, LIMIT)) return false;
  store<f64>(<usize>next, <f64><i64>at * load<f64>(walk, GRANULARITY));
  store<u32>(walk, next + 8, NEXT);
  return true;
}

/** Says that from granule `at` on the state is `dirty`. */
// @ts-ignore: decorator
@inline
function enter(walk: usize, at: u64, dirty: bool): bool {
  return isOpen(walk) == dirty ? true : edge(walk, at);
}

/**
 * Walks granules `from` up to `to` of a slot whose first granule is `base`; false when the room
 * ended.
 */
export function walkSlot(
  walk: usize, slot: u64, level: u32, base: u64, from: u64, to: u64,
): bool {
  if (slot <= DIRTY) return enter(walk, base + from, slot == DIRTY);
  if (level == 0) {
    if (tagOf(slot) == TAG_NODE) return walkLeaf(walk, nodeOf(slot), base, <u32>from, <u32>to);
    return walkRuns(walk, slot, base, <u32>from, <u32>to);
  }
  const shift = shiftOf(level - 1);
  const node = nodeOf(slot);
  const last = to - 1 >> shift;
  for (let i = from >> shift; i <= last; i++) {
    const start = i << shift;
    const low = max(from, start) - start;
    const high = min(to - start, <u64>1 << shift);
    const child = load<u64>(node + (<usize>i << 3));
    if (child == CLEAN && !isOpen(walk)) continue;
    if (!walkSlot(walk, child, level - 1, base + start, low, high)) return false;
  }
  return true;
}

function walkRuns(walk: usize, slot: u64, base: u64, from: u32, to: u32): bool {
  for (let i: u32 = 0, n = runCount(slot); i < n; i++) {
    const start = max(from, runStart(slot, i));
    const end = min(to, runEnd(slot, i));
    if (start >= end) continue;
    if (start > from && !enter(walk, base + from, false)) return false;
    if (!enter(walk, base + start, true)) return false;
    if (end == to) return true;
    if (!enter(walk, base + end, false)) return false;
  }
  return enter(walk, base + from, false);
}

/**
 * The hot loop: as few as two instructions for a word without a change, a handful for each change.
 */
function walkLeaf(walk: usize, leaf: usize, base: u64, from: u32, to: u32): bool {
  const granularity = load<f64>(walk, GRANULARITY);
  const limit = <usize>load<u32>(walk, LIMIT);
  let next = <usize>load<u32>(walk, NEXT);
  let carry = <u64>isOpen(walk);
  for (let bit = from & ~63; bit < to; bit += 64) {
    const word = load<u64>(wordAt(leaf, bit));
    let edges = word ^ (word << 1 | carry);
    carry = word >> 63;
    if (bit < from) {
      // Bits before the range do not count: their last state is what the walk came with.
      const open = <u64>isOpen(walk);
      const shift = from & 63;
      edges = (word ^ (word << 1 & ~(<u64>1 << shift) | open << shift)) & maskOf(shift, 64);
    }
    if (bit + 64 > to) edges &= maskOf(0, to - bit);
    for (; edges != 0; edges &= edges - 1) {
      if (next == limit) {
        store<u32>(walk, <u32>next, NEXT);
        return false;
      }
      store<f64>(next, <f64><i64>(base + bit + ctz<u64>(edges)) * granularity);
      next += 8;
    }
  }
  store<u32>(walk, <u32>next, NEXT);
  return true;
}
