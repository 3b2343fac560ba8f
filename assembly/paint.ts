/**
 * Making a range of granules dirty or clean: the one way in which a tree changes in place.
 *
 * A node may be written when it has one reference and everything above it has too; the walk comes
 * from the root and copies what is shared, so the second half holds by itself. Every node it may
 * need was reserved before (see `paintNeeds`), and lists can be done without: once begun, a stroke
 * cannot fail.
 */
import { NODE_BYTES } from "./layout";
import { referencesOf } from "./buddy";
import { giveSpare, releaseSlot, shareChildren, takeSpare } from "./nodes";
import {
  CLEAN, DIRTY, FANOUT, LEAF_BITS, MAX_COUNT_LEVEL, MOST_RUNS, NO_SLOT, TAG_NODE, capacityOf, countOf,
  nodeOf, nodeSlot, shiftOf, storedCount, tagOf,
} from "./slot";
import { expandRuns, paintBits } from "./leaf";
import { packRuns, paintRuns } from "./runs";

/** A stroke this wide, in granules, may leave so few runs that looking for them pays. */
const WIDE: u32 = 64;

/**
 * A leaf turns into runs when it has no more than so many: few where it grows, since looking further
 * would cost every stroke as much as the stroke itself, and not the most that there may be, or the
 * next stroke might make it a leaf again.
 */
const FEW_GROWING: u32 = 2;
const FEW_SHRINKING: u32 = MOST_RUNS >> 1;

/** Nodes and leaves that one stroke may need below a root at `height`: a path to either end. */
// @ts-ignore: decorator
@inline
export function paintNeeds(height: u32): u32 {
  return 2 * (height + 1);
}

/**
 * Makes granules `from` up to `to` (counted from the start of the slot at address `at`, not empty)
 * dirty or clean. Returns by how much the number of dirty granules grew.
 */
export function paint(h: usize, at: usize, level: u32, from: u64, to: u64, dirty: bool): i64 {
  const slot = load<u64>(at);
  const uniform = dirty ? DIRTY : CLEAN;
  if (slot == uniform) return 0;
  if (to - from == capacityOf(level)) {
    const before = countOf(slot, level);
    store<u64>(at, uniform);
    releaseSlot(slot, level);
    return <i64>(countOf(uniform, level) - before);
  }
  if (level == 0) return paintLeaf(h, at, <u32>from, <u32>to, dirty);
  return paintNode(h, at, level, from, to, dirty);
}

function paintNode(h: usize, at: usize, level: u32, from: u64, to: u64, dirty: bool): i64 {
  const node = writableNode(h, at, level);
  const shift = shiftOf(level - 1);
  const first = from >> shift;
  const last = to - 1 >> shift;
  let grown: i64 = 0;
  for (let i = first; i <= last; i++) {
    const base = i << shift;
    const low = i == first ? from - base : 0;
    const high = i == last ? to - base : <u64>1 << shift;
    grown += paint(h, node + (<usize>i << 3), level - 1, low, high, dirty);
  }
  settleNode(h, at, level, node, grown);
  return grown;
}

/** Puts a finished slot of level 0 where granule `from` is; it needs what a stroke needs. */
export function graft(h: usize, at: usize, level: u32, from: u64, slot: u64): i64 {
  if (level == 0) {
    const old = load<u64>(at);
    store<u64>(at, slot);
    releaseSlot(old, 0);
    return <i64>(countOf(slot, 0) - countOf(old, 0));
  }
  const node = writableNode(h, at, level);
  const shift = shiftOf(level - 1);
  const child = node + (<usize>(from >> shift) << 3);
  const grown = graft(h, child, level - 1, from & (<u64>1 << shift) - 1, slot);
  settleNode(h, at, level, node, grown);
  return grown;
}

/**
 * Stores the new count in a node's slot, or puts the slot in its place when all of it became
 * uniform.
 */
function settleNode(h: usize, at: usize, level: u32, node: usize, grown: i64): void {
  let uniform = NO_SLOT;
  let count: u64 = 0;
  if (level <= MAX_COUNT_LEVEL) {
    count = storedCount(load<u64>(at)) + grown;
    if (count == 0) uniform = CLEAN;
    if (count == capacityOf(level)) uniform = DIRTY;
  } else {
    uniform = uniformSlot(node);
  }
  if (uniform == NO_SLOT) return store<u64>(at, nodeSlot(node, count, level));
  store<u64>(at, uniform);
  giveSpare(h, node);
}

/** What all slots of a node say alike: CLEAN or DIRTY, else NO_SLOT. */
export function uniformSlot(node: usize): u64 {
  const first = load<u64>(node);
  if (first > DIRTY) return NO_SLOT;
  for (let i: usize = 1; i < FANOUT; i++) {
    if (load<u64>(node + (i << 3)) != first) return NO_SLOT;
  }
  return first;
}

/** The node below a slot, made or copied where needed so that this bitmap alone holds it. */
function writableNode(h: usize, at: usize, level: u32): usize {
  const slot = load<u64>(at);
  if (tagOf(slot) == TAG_NODE) {
    const node = nodeOf(slot);
    if (referencesOf(node) == 1) return node;
    const copy = takeSpare(h);
    memory.copy(copy, node, NODE_BYTES);
    if (level != 0) shareChildren(copy);
    const count = level <= MAX_COUNT_LEVEL ? storedCount(slot) : 0;
    store<u64>(at, nodeSlot(copy, count, level));
    releaseSlot(slot, level);
    return copy;
  }
  const node = takeSpare(h);
  if (level == 0) expandRuns(node, slot);
  else for (let i: usize = 0; i < FANOUT; i++) store<u64>(node + (i << 3), slot);
  store<u64>(at, nodeSlot(node, countOf(slot, level), level));
  releaseSlot(slot, level);
  return node;
}

function paintLeaf(h: usize, at: usize, from: u32, to: u32, dirty: bool): i64 {
  const slot = load<u64>(at);
  if (tagOf(slot) != TAG_NODE) {
    const before = countOf(slot, 0);
    const runs = paintRuns(h, slot, from, to, dirty);
    if (runs != NO_SLOT) {
      store<u64>(at, runs);
      return <i64>(countOf(runs, 0) - before);
    }
  }
  const leaf = writableNode(h, at, 0);
  const changed = paintBits(leaf, from, to, dirty);
  const before = <u32>storedCount(load<u64>(at));
  const count = dirty ? before + changed : before - changed;
  const wide = to - from >= WIDE;
  const few = dirty ? (wide ? FEW_GROWING : 0) : wide ? FEW_SHRINKING : count <= 2 ? count : 0;
  settleLeaf(h, at, leaf, count, few);
  return <i64>count - <i64>before;
}

/** As settleNode; a leaf that has no more than `few` runs gives way to them. */
function settleLeaf(h: usize, at: usize, leaf: usize, count: u32, few: u32): void {
  let slot = NO_SLOT;
  if (count == 0) slot = CLEAN;
  else if (count == LEAF_BITS) slot = DIRTY;
  else if (few != 0) slot = packRuns(h, leaf, few);
  if (slot == NO_SLOT) return store<u64>(at, nodeSlot(leaf, count, 0));
  store<u64>(at, slot);
  giveSpare(h, leaf);
}
