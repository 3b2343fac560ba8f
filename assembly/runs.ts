/**
 * Slots of level 0 that name their runs, in place of a leaf: up to two in the slot itself, up to
 * sixteen in a list of one unit. A list is put together on the desk of the bitmap, which belongs to
 * whoever holds its lock. Nobody depends on lists: where there is no memory for one, or there are
 * too many runs, the leaf that was reserved says the same.
 */
import { BITMAP_DESK, UNIT_BYTES } from "./layout";
import { alloc, referencesOf } from "./buddy";
import { releaseSlot } from "./nodes";
import {
  CLEAN, LEAF_BITS, MOST_RUNS, NO_SLOT, appendRun, isList, listSlot, nodeOf, runCount, runEnd,
  runStart,
} from "./slot";
import { wordAt } from "./leaf";

/**
 * A slot with granules `from` up to `to` made dirty or clean, which takes over the reference of the
 * one that is given; NO_SLOT, and nothing changed, when its runs become too many or the arena is
 * full.
 */
export function paintRuns(h: usize, slot: u64, from: u32, to: u32, dirty: bool): u64 {
  const desk = h + BITMAP_DESK;
  const runs = dirty ? addRun(desk, slot, from, to) : takeRun(desk, slot, from, to);
  if (runs > MOST_RUNS) return NO_SLOT;
  if (runs > 2 && isList(slot) && referencesOf(nodeOf(slot)) == 1) {
    return fillList(nodeOf(slot), desk, runs);
  }
  const result = slotOf(desk, runs);
  if (result != NO_SLOT) releaseSlot(slot, 0);
  return result;
}

/** The slot that says the same as a leaf, in at most `most` runs; else NO_SLOT. */
export function packRuns(h: usize, leaf: usize, most: u32): u64 {
  const desk = h + BITMAP_DESK;
  let runs: u32 = 0;
  let start: u32 = 0;
  let carry: u64 = 0;
  for (let base: u32 = 0; base < LEAF_BITS; base += 64) {
    const word = load<u64>(wordAt(leaf, base));
    // 1 where a bit differs from the one before it: run starts and run ends take turns.
    let edges = word ^ (word << 1 | carry);
    let inside = carry != 0;
    for (; edges != 0; edges &= edges - 1) {
      const at = base + <u32>ctz<u64>(edges);
      if (inside) runs = append(desk, runs, start, at);
      else if (runs == most) return NO_SLOT;
      else start = at;
      inside = !inside;
    }
    carry = word >> 63;
  }
  if (carry != 0) runs = append(desk, runs, start, LEAF_BITS);
  return slotOf(desk, runs);
}

/** A slot of the runs on the desk; NO_SLOT when it needs a list and the arena is full. */
function slotOf(desk: usize, runs: u32): u64 {
  if (runs > 2) {
    const list = alloc(UNIT_BYTES);
    return list == 0 ? NO_SLOT : fillList(list, desk, runs);
  }
  let slot = CLEAN;
  for (let i: u32 = 0; i < runs; i++) slot = appendRun(slot, startAt(desk, i), endAt(desk, i));
  return slot;
}

function fillList(list: usize, desk: usize, runs: u32): u64 {
  memory.copy(list, desk, UNIT_BYTES);
  let count: u32 = 0;
  for (let i: u32 = 0; i < runs; i++) count += endAt(desk, i) - startAt(desk, i);
  return listSlot(list, runs, count);
}

// @ts-ignore: decorator
@inline
function startAt(desk: usize, index: u32): u32 {
  return load<u16>(desk + (<usize>index << 2));
}

// @ts-ignore: decorator
@inline
function endAt(desk: usize, index: u32): u32 {
  return <u32>load<u16>(desk + (<usize>index << 2), 2) + 1;
}

/**
 * Puts one run more on the desk, unless it is empty; returns how many there are, one that has found
 * no room included.
 */
function append(desk: usize, runs: u32, start: u32, end: u32): u32 {
  if (start >= end || runs > MOST_RUNS) return runs;
  if (runs < MOST_RUNS) store<u32>(desk + (<usize>runs << 2), start | end - 1 << 16);
  return runs + 1;
}

function addRun(desk: usize, slot: u64, from: u32, to: u32): u32 {
  let runs: u32 = 0;
  let pending = true;
  for (let i: u32 = 0, n = runCount(slot); i < n; i++) {
    const start = runStart(slot, i);
    const end = runEnd(slot, i);
    if (end < from) {
      runs = append(desk, runs, start, end);
    } else if (start > to) {
      if (pending) runs = append(desk, runs, from, to);
      pending = false;
      runs = append(desk, runs, start, end);
    } else {
      from = min(from, start);
      to = max(to, end);
    }
  }
  return pending ? append(desk, runs, from, to) : runs;
}

function takeRun(desk: usize, slot: u64, from: u32, to: u32): u32 {
  let runs: u32 = 0;
  for (let i: u32 = 0, n = runCount(slot); i < n; i++) {
    const start = runStart(slot, i);
    const end = runEnd(slot, i);
    runs = append(desk, runs, start, min(end, from));
    runs = append(desk, runs, max(start, to), end);
  }
  return runs;
}
