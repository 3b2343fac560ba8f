/** Whole words: the serialized form of a bitmap, and leaf against leaf. */
import { OP_INTERSECT, OP_MERGE, OP_SUBTRACT, NODE_BYTES } from "./layout";
import {
  CLEAN, DIRTY, LEAF_BITS, TAG_NODE, nodeOf, runCount, runEnd, runStart, shiftOf, tagOf,
} from "./slot";
import { paintBits } from "./leaf";

/**
 * Writes granules `from` up to `to` of a slot, one bit each, to `target`; both are multiples of 64,
 * and `target` is where granule `from` goes.
 */
export function readWords(slot: u64, level: u32, from: u64, to: u64, target: usize): void {
  const bytes = <usize>(to - from >> 3);
  if (slot <= DIRTY) return memory.fill(target, slot == DIRTY ? 0xff : 0, bytes);
  if (level == 0) return readLeaf(slot, <u32>from, <u32>to, target);
  const shift = shiftOf(level - 1);
  const node = nodeOf(slot);
  const last = to - 1 >> shift;
  for (let i = from >> shift; i <= last; i++) {
    const base = i << shift;
    const low = max(from, base);
    const high = min(to, base + (<u64>1 << shift));
    const child = load<u64>(node + (<usize>i << 3));
    readWords(child, level - 1, low - base, high - base, target + <usize>(low - from >> 3));
  }
}

function readLeaf(slot: u64, from: u32, to: u32, target: usize): void {
  const bytes = <usize>(to - from >> 3);
  if (tagOf(slot) == TAG_NODE) return memory.copy(target, nodeOf(slot) + (from >> 3), bytes);
  memory.fill(target, 0, bytes);
  for (let i: u32 = 0, n = runCount(slot); i < n; i++) {
    const low = max(from, runStart(slot, i));
    const high = min(to, runEnd(slot, i));
    if (low < high) paintBits(target, low - from, high - from, true);
  }
}

/** Whether `words` words are all 0 (CLEAN), all 1 (DIRTY), or neither (TAG_NODE). */
export function classifyWords(source: usize, words: u32): u64 {
  const first = load<u64>(source);
  if (first + 1 > 1) return TAG_NODE;
  for (let i: usize = 1; i < words; i++) {
    if (load<u64>(source + (i << 3)) != first) return TAG_NODE;
  }
  return first == 0 ? CLEAN : DIRTY;
}

/** Combines leaf `target` in place with leaf `source`. */
export function combineWords(target: usize, source: usize, op: i32): void {
  if (ASC_FEATURE_SIMD) combineWordsSimd(target, source, op);
  else combineWordsScalar(target, source, op);
}

function combineWordsSimd(target: usize, source: usize, op: i32): void {
  for (let at: usize = 0; at < NODE_BYTES; at += 16) {
    const left = v128.load(target + at);
    const right = v128.load(source + at);
    let result = v128.xor(left, right);
    if (op == OP_MERGE) result = v128.or(left, right);
    else if (op == OP_INTERSECT) result = v128.and(left, right);
    else if (op == OP_SUBTRACT) result = v128.andnot(left, right);
    v128.store(target + at, result);
  }
}

function combineWordsScalar(target: usize, source: usize, op: i32): void {
  for (let at: usize = 0; at < NODE_BYTES; at += 8) {
    const left = load<u64>(target + at);
    const right = load<u64>(source + at);
    let result = left ^ right;
    if (op == OP_MERGE) result = left | right;
    else if (op == OP_INTERSECT) result = left & right;
    else if (op == OP_SUBTRACT) result = left & ~right;
    store<u64>(target + at, result);
  }
}
