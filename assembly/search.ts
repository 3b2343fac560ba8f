/**
 * Looking things up: one granule, the next dirty or clean one, how many there are, and which is the
 * n-th. Uniform slots answer at once, so that every search costs a few steps for each level,
 * however long the run of equal granules that it passes.
 */
import {
  CLEAN, DIRTY, FANOUT, LEAF_BITS, TAG_NODE, countOf, nodeOf, runCount, runEnd, runStart, shiftOf,
  tagOf,
} from "./slot";
import { countBits, findBit, selectBit, wordAt } from "./leaf";

// @ts-ignore: decorator
@inline
function childOf(slot: u64, index: u64): u64 {
  return load<u64>(nodeOf(slot) + (<usize>index << 3));
}

/** Whether granule `at` is dirty. */
export function isDirty(slot: u64, level: u32, at: u64): bool {
  while (level != 0) {
    if (slot <= DIRTY) return slot == DIRTY;
    level--;
    slot = childOf(slot, at >> shiftOf(level));
    at &= (<u64>1 << shiftOf(level)) - 1;
  }
  if (slot <= DIRTY) return slot == DIRTY;
  const bit = <u32>at;
  if (tagOf(slot) == TAG_NODE) return (load<u64>(wordAt(nodeOf(slot), bit)) >> (bit & 63) & 1) != 0;
  for (let i: u32 = 0, n = runCount(slot); i < n; i++) {
    if (bit < runEnd(slot, i)) return bit >= runStart(slot, i);
  }
  return false;
}

/** First granule at or behind `from` that is dirty, or clean; -1 when the slot has none. */
export function find(slot: u64, level: u32, from: u64, dirty: bool): i64 {
  if (slot <= DIRTY) return (slot == DIRTY) == dirty ? <i64>from : -1;
  if (level == 0) {
    if (tagOf(slot) == TAG_NODE) return findBit(nodeOf(slot), <u32>from, dirty);
    return findInRuns(slot, <u32>from, dirty);
  }
  const shift = shiftOf(level - 1);
  const hopeless = dirty ? CLEAN : DIRTY;
  let low = from & (<u64>1 << shift) - 1;
  for (let i = from >> shift; i < FANOUT; i++) {
    const child = childOf(slot, i);
    if (child != hopeless) {
      const found = find(child, level - 1, low, dirty);
      if (found >= 0) return <i64>(i << shift) + found;
    }
    low = 0;
  }
  return -1;
}

function findInRuns(slot: u64, from: u32, dirty: bool): i64 {
  for (let i: u32 = 0, n = runCount(slot); i < n; i++) {
    const start = runStart(slot, i);
    const end = runEnd(slot, i);
    if (dirty && from < end) return <i64>max(from, start);
    if (!dirty && from < start) return <i64>from;
    if (!dirty && from < end) from = end;
  }
  return !dirty && from < LEAF_BITS ? <i64>from : -1;
}

/** Dirty granules from `from` up to `to`. */
export function countRange(slot: u64, level: u32, from: u64, to: u64): u64 {
  if (slot == CLEAN || from >= to) return 0;
  if (slot == DIRTY) return to - from;
  const shift = shiftOf(level);
  if (to - from == <u64>1 << shift) return countOf(slot, level);
  if (level == 0) return countLeaf(slot, <u32>from, <u32>to);
  const below = shiftOf(level - 1);
  const last = to - 1 >> below;
  let count: u64 = 0;
  for (let i = from >> below; i <= last; i++) {
    const base = i << below;
    const low = max(from, base) - base;
    const high = min(to - base, <u64>1 << below);
    count += countRange(childOf(slot, i), level - 1, low, high);
  }
  return count;
}

function countLeaf(slot: u64, from: u32, to: u32): u64 {
  if (tagOf(slot) == TAG_NODE) return countBits(nodeOf(slot), from, to);
  let count: u64 = 0;
  for (let i: u32 = 0, n = runCount(slot); i < n; i++) {
    const low = max(from, runStart(slot, i));
    const high = min(to, runEnd(slot, i));
    if (low < high) count += high - low;
  }
  return count;
}

/** The dirty granule that has exactly `rank` dirty ones before it; there must be one. */
export function select(slot: u64, level: u32, rank: u64): u64 {
  if (slot == DIRTY) return rank;
  if (level == 0) return selectInLeaf(slot, <u32>rank);
  const shift = shiftOf(level - 1);
  for (let i: u64 = 0; i < FANOUT; i++) {
    const child = childOf(slot, i);
    const count = countOf(child, level - 1);
    if (rank < count) return (i << shift) + select(child, level - 1, rank);
    rank -= count;
  }
  assert(false);
  return 0;
}

function selectInLeaf(slot: u64, rank: u32): u64 {
  if (tagOf(slot) == TAG_NODE) return selectBit(nodeOf(slot), rank);
  let i: u32 = 0;
  for (; runStart(slot, i) + rank >= runEnd(slot, i); i++) rank -= runEnd(slot, i) - runStart(slot, i);
  return runStart(slot, i) + rank;
}
