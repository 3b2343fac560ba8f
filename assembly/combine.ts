/**
 * Set algebra on whole trees, built functionally: the operands stay as they are, the result is a
 * new slot with references of its own and shares every node it can. When memory runs out, what was
 * built is released and the answer is NO_SLOT, so that the caller has nothing to undo.
 *
 * Where one side is uniform the result is known without looking: nothing, everything, the other
 * side, or its complement. Only parts that are mixed on both sides are visited.
 */
import { OP_INTERSECT, OP_MERGE, OP_SUBTRACT, OP_XOR, NODE_BYTES } from "./layout";
import { giveSpare, releaseSlot, reserve, shareSlot, takeSpare } from "./nodes";
import {
  CLEAN, DIRTY, FANOUT, LEAF_BITS, MOST_RUNS, NO_SLOT, TAG_NODE, capacityOf, countOf, nodeOf,
  nodeSlot, runCount, runEnd, runStart, sumNode, tagOf,
} from "./slot";
import { countBits, expandRuns, flipBits, paintBits } from "./leaf";
import { packRuns } from "./runs";
import { combineWords } from "./words";

/** A node or leaf for a tree under construction, or 0. */
function takeNode(h: usize): usize {
  if (!reserve(h, 1)) return 0;
  return takeSpare(h);
}

/** The combination of two slots of one level, or NO_SLOT when the arena is full. */
export function combine(h: usize, op: i32, a: u64, b: u64, level: u32): u64 {
  if (a == b) return op == OP_MERGE || op == OP_INTERSECT ? shareSlot(a) : CLEAN;
  if (b <= DIRTY) return withUniformRight(h, op, a, b, level);
  if (a <= DIRTY) return withUniformLeft(h, op, a, b, level);
  return level == 0 ? combineLeaves(h, op, a, b) : combineNodes(h, op, a, b, level);
}

function withUniformRight(h: usize, op: i32, a: u64, b: u64, level: u32): u64 {
  if (b == CLEAN) return op == OP_INTERSECT ? CLEAN : shareSlot(a);
  if (op == OP_MERGE) return DIRTY;
  if (op == OP_INTERSECT) return shareSlot(a);
  return op == OP_SUBTRACT ? CLEAN : complement(h, a, level);
}

function withUniformLeft(h: usize, op: i32, a: u64, b: u64, level: u32): u64 {
  if (a == CLEAN) return op == OP_MERGE || op == OP_XOR ? shareSlot(b) : CLEAN;
  if (op == OP_MERGE) return DIRTY;
  return op == OP_INTERSECT ? shareSlot(b) : complement(h, b, level);
}

function combineNodes(h: usize, op: i32, a: u64, b: u64, level: u32): u64 {
  const node = takeNode(h);
  if (node == 0) return NO_SLOT;
  const left = nodeOf(a);
  const right = nodeOf(b);
  for (let i: usize = 0; i < FANOUT; i++) {
    const at = i << 3;
    const slot = combine(h, op, load<u64>(left + at), load<u64>(right + at), level - 1);
    if (slot == NO_SLOT) return releaseBuilt(h, node, i, level);
    store<u64>(node + at, slot);
  }
  return finishNode(h, op, node, a, b, level);
}

/** Everything that is dirty in one is clean in the other. */
function complement(h: usize, slot: u64, level: u32): u64 {
  if (slot <= DIRTY) return slot ^ DIRTY;
  if (level == 0) return combineLeaves(h, OP_XOR, slot, DIRTY);
  const node = takeNode(h);
  if (node == 0) return NO_SLOT;
  const from = nodeOf(slot);
  for (let i: usize = 0; i < FANOUT; i++) {
    const child = complement(h, load<u64>(from + (i << 3)), level - 1);
    if (child == NO_SLOT) return releaseBuilt(h, node, i, level);
    store<u64>(node + (i << 3), child);
  }
  return nodeSlot(node, capacityOf(level) - countOf(slot, level), level);
}

/** Releases a node of which only the first `built` slots hold something. */
function releaseBuilt(h: usize, node: usize, built: usize, level: u32): u64 {
  for (let i: usize = 0; i < built; i++) releaseSlot(load<u64>(node + (i << 3)), level - 1);
  giveSpare(h, node);
  return NO_SLOT;
}

/**
 * The slot of a result: uniform, or one of the operands when it says the same, or the new node. No
 * operation but xor can change anything without changing the count, so equal counts mean equal
 * content.
 */
function finishNode(h: usize, op: i32, node: usize, a: u64, b: u64, level: u32): u64 {
  const count = sumNode(node, level);
  const same = operandWith(op, count, a, b, level);
  if (same == NO_SLOT) return nodeSlot(node, count, level);
  releaseBuilt(h, node, FANOUT, level);
  return shareSlot(same);
}

function operandWith(op: i32, count: u64, a: u64, b: u64, level: u32): u64 {
  if (count == 0) return CLEAN;
  if (count == capacityOf(level)) return DIRTY;
  if (op == OP_XOR) return NO_SLOT;
  if (count == countOf(a, level)) return a;
  return op != OP_SUBTRACT && count == countOf(b, level) ? b : NO_SLOT;
}

function combineLeaves(h: usize, op: i32, a: u64, b: u64): u64 {
  const leaf = takeNode(h);
  if (leaf == 0) return NO_SLOT;
  if (tagOf(a) == TAG_NODE) memory.copy(leaf, nodeOf(a), NODE_BYTES);
  else expandRuns(leaf, a);
  if (tagOf(b) == TAG_NODE) combineWords(leaf, nodeOf(b), op);
  else combineRuns(leaf, b, op);
  const count = countBits(leaf, 0, LEAF_BITS);
  let slot = operandWith(op, count, a, b, 0);
  if (slot != NO_SLOT) shareSlot(slot);
  else slot = packRuns(h, leaf, MOST_RUNS);
  if (slot == NO_SLOT) return nodeSlot(leaf, count, 0);
  giveSpare(h, leaf);
  return slot;
}

/** Combines a leaf in place with a slot that holds runs. */
function combineRuns(leaf: usize, slot: u64, op: i32): void {
  let behind: u32 = 0;
  for (let i: u32 = 0, n = runCount(slot); i < n; i++) {
    const start = runStart(slot, i);
    const end = runEnd(slot, i);
    if (op == OP_XOR) flipBits(leaf, start, end);
    else if (op == OP_INTERSECT) paintBits(leaf, behind, start, false);
    else paintBits(leaf, start, end, op == OP_MERGE);
    behind = end;
  }
  if (op == OP_INTERSECT) paintBits(leaf, behind, LEAF_BITS, false);
}
