/**
 * A slot says in 64 bits what a part of a bitmap holds. At level L it speaks of 2^(12 + 6 L)
 * granules.
 *
 *     63             ..            28 27      ..      2 1 0
 *    |             0                                   |00|  CLEAN  all of it is clean
 *    |             0                                   |01|  DIRTY  all of it is dirty
 *    | dirty granules below (36 bits) | unit (26 bits) |10|  NODE   64 slots, or a leaf
 *    | 0 | second? | last start | last start (12 each) |11|  RUNS   one or two runs
 *    | 0 | runs (5) | dirty (13)      | unit (26 bits) |01|  LIST   3 to 16 runs, in one unit
 *
 * RUNS and LIST stand at level 0 only. NODE means mixed: a part that has become uniform is always
 * CLEAN or DIRTY. The count field is too narrow for level 5 and above (2^42 granules and more);
 * there it is 0, and whoever wants to know adds up the slots below. A list holds 4 bytes for each
 * run, its first and its last granule as u16, in order, and at least one clean granule is between
 * two of them.
 */
import { UNIT_BYTES } from "./layout";

export const CLEAN: u64 = 0;
export const DIRTY: u64 = 1;
export const TAG_NODE: u32 = 2;
export const TAG_RUNS: u32 = 3;
const TAG_LIST: u32 = 1;
/** No slot: more runs than it takes, or no memory for it. */
export const NO_SLOT: u64 = ~0;

export const LEAF_SHIFT: u32 = 12;
export const LEAF_BITS: u32 = 1 << LEAF_SHIFT;
export const FANOUT_SHIFT: u32 = 6;
export const FANOUT: u32 = 1 << FANOUT_SHIFT;
/** The highest level whose slots carry a count. */
export const MAX_COUNT_LEVEL: u32 = 4;

/** A list of so many runs fills its unit. */
export const MOST_RUNS: u32 = UNIT_BYTES >> 2;

const COUNT_SHIFT: u64 = 28;
const LIST_COUNT_MASK: u32 = (1 << 13) - 1;
const LIST_RUNS_SHIFT: u64 = 41;
const RUN_MASK: u32 = LEAF_BITS - 1;
const SECOND: u64 = 1 << 50;

// @ts-ignore: decorator
@inline
export function tagOf(slot: u64): u32 {
  return <u32>slot & 3;
}

/** Whether a slot is a list of runs. */
// @ts-ignore: decorator
@inline
export function isList(slot: u64): bool {
  return tagOf(slot) == TAG_LIST && slot != DIRTY;
}

/** Whether a slot holds a reference of a block: a node, a leaf or a list. */
// @ts-ignore: decorator
@inline
export function holdsBlock(slot: u64): bool {
  return slot > DIRTY && tagOf(slot) != TAG_RUNS;
}

/** Address of the node, leaf or list that a slot names. */
// @ts-ignore: decorator
@inline
export function nodeOf(slot: u64): usize {
  return <usize>(<u32>slot << 4 & ~(UNIT_BYTES - 1));
}

/** Log2 of the granules that a slot at `level` speaks of. */
// @ts-ignore: decorator
@inline
export function shiftOf(level: u32): u64 {
  return LEAF_SHIFT + FANOUT_SHIFT * level;
}

// @ts-ignore: decorator
@inline
export function capacityOf(level: u32): u64 {
  return <u64>1 << shiftOf(level);
}

/** A NODE slot; `count` is ignored where the level cannot hold it. */
// @ts-ignore: decorator
@inline
export function nodeSlot(node: usize, count: u64, level: u32): u64 {
  const head = <u64>(<u32>node >> 4) | TAG_NODE;
  return level > MAX_COUNT_LEVEL ? head : head | count << COUNT_SHIFT;
}

/** A LIST slot, of so many runs with so many dirty granules. */
export function listSlot(list: usize, runs: u32, count: u32): u64 {
  const head = <u64>(<u32>list >> 4) | TAG_LIST;
  return head | <u64>count << COUNT_SHIFT | <u64>runs << LIST_RUNS_SHIFT;
}

/** The count field of a NODE slot. */
// @ts-ignore: decorator
@inline
export function storedCount(slot: u64): u64 {
  return slot >> COUNT_SHIFT;
}

/** A NODE slot whose count field has grown by `change`. */
// @ts-ignore: decorator
@inline
export function addCount(slot: u64, change: i64): u64 {
  return slot + (change << COUNT_SHIFT);
}

/** Dirty granules in a slot at `level`. */
export function countOf(slot: u64, level: u32): u64 {
  if (slot == CLEAN) return 0;
  if (slot == DIRTY) return capacityOf(level);
  if (isList(slot)) return <u32>(slot >> COUNT_SHIFT) & LIST_COUNT_MASK;
  if (tagOf(slot) == TAG_RUNS) {
    let count: u64 = 0;
    for (let i: u32 = 0, n = runCount(slot); i < n; i++) {
      count += runEnd(slot, i) - runStart(slot, i);
    }
    return count;
  }
  if (level <= MAX_COUNT_LEVEL) return storedCount(slot);
  return sumNode(nodeOf(slot), level);
}

/** Dirty granules below a node whose own slot is at `level`. */
export function sumNode(node: usize, level: u32): u64 {
  let count: u64 = 0;
  for (let i: usize = 0; i < FANOUT; i++) count += countOf(load<u64>(node + (i << 3)), level - 1);
  return count;
}

/** Runs of a level-0 slot: 0 for CLEAN, 1 for DIRTY. Not for leaves. */
export function runCount(slot: u64): u32 {
  if (slot == CLEAN) return 0;
  if (isList(slot)) return <u32>(slot >> LIST_RUNS_SHIFT);
  return slot & SECOND ? 2 : 1;
}

/** First granule of run `index`. */
export function runStart(slot: u64, index: u32): u32 {
  if (slot == DIRTY) return 0;
  if (isList(slot)) return load<u16>(nodeOf(slot) + (<usize>index << 2));
  return <u32>(slot >> (index == 0 ? 2 : 26)) & RUN_MASK;
}

/** First granule behind run `index`. */
export function runEnd(slot: u64, index: u32): u32 {
  if (slot == DIRTY) return LEAF_BITS;
  if (isList(slot)) return <u32>load<u16>(nodeOf(slot) + (<usize>index << 2), 2) + 1;
  return (<u32>(slot >> (index == 0 ? 14 : 38)) & RUN_MASK) + 1;
}

/**
 * A level-0 slot that is no list with one run more, behind those it has. An empty run adds nothing;
 * a run too many gives NO_SLOT, and so does adding to that.
 */
export function appendRun(slot: u64, start: u32, end: u32): u64 {
  if (start >= end || slot == NO_SLOT) return slot;
  const run = <u64>start | <u64>(end - 1) << LEAF_SHIFT;
  if (slot == CLEAN) return end - start == LEAF_BITS ? DIRTY : run << 2 | TAG_RUNS;
  return slot & SECOND ? NO_SLOT : slot | run << 26 | SECOND;
}
