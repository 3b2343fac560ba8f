/**
 * Leaves: 4096 bits in 64 little-endian words, bit 0 of word 0 first. Plain loads and stores,
 * because nobody touches a leaf without the lock of the one bitmap that may write it.
 */
import {
  LEAF_BITS, NO_SLOT, CLEAN, DIRTY, TAG_RUNS, appendRun, runCount, runEnd, runStart, tagOf,
} from "./slot";
import { UNIT_BYTES } from "./layout";

// @ts-ignore: decorator
@inline
export function wordAt(leaf: usize, bit: u32): usize {
  return leaf + (<usize>(bit >> 6) << 3);
}

/** The bits of one word from `from` (0 to 63) up to `to` (1 to 64). */
// @ts-ignore: decorator
@inline
export function maskOf(from: u32, to: u32): u64 {
  return ~(<u64>0) << from & ~(<u64>0) >> 64 - to;
}

/** Makes the bits from `from` up to `to` all 1 or all 0; returns how many changed. */
export function paintBits(leaf: usize, from: u32, to: u32, dirty: bool): u32 {
  let changed: u64 = 0;
  while (from < to) {
    const at = wordAt(leaf, from);
    const stop = min((from | 63) + 1, to);
    const mask = maskOf(from & 63, stop - (from & ~63));
    const word = load<u64>(at);
    changed += popcnt<u64>(mask & (dirty ? ~word : word));
    store<u64>(at, dirty ? word | mask : word & ~mask);
    from = stop;
  }
  return <u32>changed;
}

/** Turns every bit from `from` up to `to` over. */
export function flipBits(leaf: usize, from: u32, to: u32): void {
  while (from < to) {
    const at = wordAt(leaf, from);
    const stop = min((from | 63) + 1, to);
    store<u64>(at, load<u64>(at) ^ maskOf(from & 63, stop - (from & ~63)));
    from = stop;
  }
}

/** Bits that are 1 from `from` up to `to`. */
export function countBits(leaf: usize, from: u32, to: u32): u32 {
  let count: u64 = 0;
  while (from < to) {
    const stop = min((from | 63) + 1, to);
    count += popcnt<u64>(load<u64>(wordAt(leaf, from)) & maskOf(from & 63, stop - (from & ~63)));
    from = stop;
  }
  return <u32>count;
}

/** First bit at or behind `from` that is 1 (`dirty`) or 0; -1 when the leaf has none. */
export function findBit(leaf: usize, from: u32, dirty: bool): i64 {
  const flip: u64 = dirty ? 0 : ~(<u64>0);
  let word = (load<u64>(wordAt(leaf, from)) ^ flip) & ~(<u64>0) << (from & 63);
  let base = from & ~63;
  while (word == 0) {
    base += 64;
    if (base == LEAF_BITS) return -1;
    word = load<u64>(wordAt(leaf, base)) ^ flip;
  }
  return <i64>(base + <u32>ctz<u64>(word));
}

/** Index of the `rank`-th bit (from 0) that is 1; there must be one. */
export function selectBit(leaf: usize, rank: u32): u32 {
  for (let base: u32 = 0; base < LEAF_BITS; base += 64) {
    let word = load<u64>(wordAt(leaf, base));
    const count = <u32>popcnt<u64>(word);
    if (rank >= count) {
      rank -= count;
      continue;
    }
    while (rank-- != 0) word &= word - 1;
    return base + <u32>ctz<u64>(word);
  }
  assert(false);
  return 0;
}

/** Fills a block of one unit with what a slot of level 0 that is no leaf says. */
export function expandRuns(leaf: usize, slot: u64): void {
  memory.fill(leaf, slot == DIRTY ? 0xff : 0, UNIT_BYTES);
  if (tagOf(slot) != TAG_RUNS) return;
  for (let i: u32 = 0, n = runCount(slot); i < n; i++) {
    paintBits(leaf, runStart(slot, i), runEnd(slot, i), true);
  }
}

/**
 * The slot that says the same as a leaf without needing one; NO_SLOT when it takes more than two
 * runs.
 */
export function packRuns(leaf: usize): u64 {
  let slot = CLEAN;
  let start: u32 = 0;
  let carry: u64 = 0;
  for (let base: u32 = 0; base < LEAF_BITS; base += 64) {
    const word = load<u64>(wordAt(leaf, base));
    // 1 where a bit differs from the one before it: run starts and run ends take turns.
    let edges = word ^ (word << 1 | carry);
    let inside = carry != 0;
    for (; edges != 0; edges &= edges - 1) {
      const at = base + <u32>ctz<u64>(edges);
      if (inside) slot = appendRun(slot, start, at);
      else start = at;
      inside = !inside;
      if (slot == NO_SLOT) return NO_SLOT;
    }
    carry = word >> 63;
  }
  return carry != 0 ? appendRun(slot, start, LEAF_BITS) : slot;
}

/**
 * The runs of a slot with `from` up to `to` added or taken away; NO_SLOT when they become too many.
 */
export function paintRuns(slot: u64, from: u32, to: u32, dirty: bool): u64 {
  return dirty ? addToRuns(slot, from, to) : takeFromRuns(slot, from, to);
}

function addToRuns(slot: u64, from: u32, to: u32): u64 {
  let result = CLEAN;
  let pending = true;
  for (let i: u32 = 0, n = runCount(slot); i < n; i++) {
    const start = runStart(slot, i);
    const end = runEnd(slot, i);
    if (end < from) {
      result = appendRun(result, start, end);
    } else if (start > to) {
      if (pending) result = appendRun(result, from, to);
      pending = false;
      result = appendRun(result, start, end);
    } else {
      from = min(from, start);
      to = max(to, end);
    }
  }
  return pending ? appendRun(result, from, to) : result;
}

function takeFromRuns(slot: u64, from: u32, to: u32): u64 {
  let result = CLEAN;
  for (let i: u32 = 0, n = runCount(slot); i < n; i++) {
    const start = runStart(slot, i);
    const end = runEnd(slot, i);
    result = appendRun(result, start, min(end, from));
    result = appendRun(result, max(start, to), end);
  }
  return result;
}
