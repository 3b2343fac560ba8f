/**
 * Two bitmaps together. Both locks are held, taken in the order of their addresses so that two
 * threads cannot wait for each other. The new tree is built beside the old one and takes its place
 * when it is whole: a full arena changes nothing.
 *
 * With different granularities the result is the exact result, rounded outward to the target's
 * granules, so that no rounding loses dirt. A target with finer granules needs nothing but the
 * other's runs. For one with coarser granules, let `any` be those of its granules that the other
 * touches, and `all` those that it covers: then merge is A + any, intersect A * any, subtract A -
 * all, and xor (A - all) + (any - A).
 */
import {
  ARENA_FULL, BITMAP_COUNT, BITMAP_SCRATCH, BITMAP_HEIGHT, BITMAP_ROOT, MISMATCH, OK, OP_MERGE,
  OP_SUBTRACT, OP_XOR,
} from "./layout";
import {
  lockBitmap, granulesOf, heightFor, heightOf, unlockBitmap, paintRoot, rootOf, setGeometry,
  shiftOfBitmap, sizeOf,
} from "./bitmap";
import { releaseSlot, reserve, shareSlot, takeSpare } from "./nodes";
import {
  CLEAN, FANOUT, NO_SLOT, TAG_NODE, capacityOf, countOf, nodeOf, nodeSlot, tagOf,
} from "./slot";
import { paint, paintNeeds } from "./paint";
import { find } from "./search";
import { combine } from "./combine";

function lockBoth(a: usize, b: usize): void {
  lockBitmap(min(a, b));
  if (a != b) lockBitmap(max(a, b));
}

function unlockBoth(a: usize, b: usize): void {
  unlockBitmap(a);
  if (a != b) unlockBitmap(b);
}

/** Puts a finished tree in the place of the old one. */
function replaceRoot(h: usize, root: u64): i32 {
  if (root == NO_SLOT) return ARENA_FULL;
  const old = rootOf(h);
  store<u64>(h, root, BITMAP_ROOT);
  store<u64>(h, countOf(root, heightOf(h)), BITMAP_COUNT);
  releaseSlot(old, heightOf(h));
  return OK;
}

/** Bitmap `h` becomes the combination of itself and `other`. */
export function bitmapCombine(h: usize, other: usize, op: i32): i32 {
  lockBoth(h, other);
  let result = MISMATCH;
  if (sizeOf(h) == sizeOf(other)) result = replaceRoot(h, combined(h, other, op));
  unlockBoth(h, other);
  return result;
}

function combined(h: usize, other: usize, op: i32): u64 {
  const height = heightOf(h);
  const shift = shiftOfBitmap(h);
  if (shift == shiftOfBitmap(other)) return combine(h, op, rootOf(h), rootOf(other), height);
  if (op == OP_XOR && shift > shiftOfBitmap(other)) return xorFiner(h, other);
  return combineOwned(h, op, shareSlot(rootOf(h)), convert(h, other, op == OP_SUBTRACT));
}

/** As combine, of slots whose references end here; NO_SLOT on either side stays NO_SLOT. */
function combineOwned(h: usize, op: i32, a: u64, b: u64): u64 {
  const height = heightOf(h);
  const result = a == NO_SLOT || b == NO_SLOT ? NO_SLOT : combine(h, op, a, b, height);
  if (a != NO_SLOT) releaseSlot(a, height);
  if (b != NO_SLOT) releaseSlot(b, height);
  return result;
}

function xorFiner(h: usize, other: usize): u64 {
  const kept = combineOwned(h, OP_SUBTRACT, shareSlot(rootOf(h)), convert(h, other, true));
  const added = combineOwned(h, OP_SUBTRACT, convert(h, other, false), shareSlot(rootOf(h)));
  return combineOwned(h, OP_MERGE, kept, added);
}

/**
 * The content of `other` in the granules of `h`: those it touches, or (`inward`) those it covers.
 * NO_SLOT when the arena is full.
 */
function convert(h: usize, other: usize, inward: bool): u64 {
  const scratch = h + BITMAP_SCRATCH;
  store<u64>(scratch, CLEAN);
  const size = sizeOf(h);
  const root = rootOf(other);
  const height = heightOf(other);
  const shift = shiftOfBitmap(other);
  const wider = shiftOfBitmap(h);
  const excess = (<u64>1 << wider) - 1;
  let from: u64 = 0;
  while (from < granulesOf(other)) {
    const start = find(root, height, from, true);
    if (start < 0) break;
    const clean = find(root, height, start, false);
    const end = clean < 0 ? granulesOf(other) : min(<u64>clean, granulesOf(other));
    const low = <u64>start << shift;
    const high = min(end << shift, size);
    const first = (inward ? low + excess : low) >> wider;
    // Whoever reaches the end covers the partial last granule as well.
    const last = (inward && high < size ? high : high + excess) >> wider;
    if (!paintDraft(h, first, last)) return NO_SLOT;
    // A coarse granule that is dirty already needs no further look.
    from = inward ? end : max(end, last << wider >> shift);
  }
  return load<u64>(scratch);
}

function paintDraft(h: usize, from: u64, to: u64): bool {
  if (from >= to) return true;
  const scratch = h + BITMAP_SCRATCH;
  const height = heightOf(h);
  if (reserve(h, paintNeeds(height))) {
    paint(h, scratch, height, from, to, true);
    return true;
  }
  releaseSlot(load<u64>(scratch), height);
  return false;
}

/**
 * Granules `from` up to `to` of `h` become what they are in `other`, which has the same geometry
 * and is clean everywhere else.
 */
export function bitmapReplace(h: usize, other: usize, from: f64, to: f64): i32 {
  lockBoth(h, other);
  let result = MISMATCH;
  if (sizeOf(h) == sizeOf(other) && shiftOfBitmap(h) == shiftOfBitmap(other)) {
    const rest = without(h, <u64><i64>from, <u64><i64>to);
    result = replaceRoot(h, combineOwned(h, OP_MERGE, rest, shareSlot(rootOf(other))));
  }
  unlockBoth(h, other);
  return result;
}

/** The content of `h` with granules `from` up to `to` made clean, or NO_SLOT. */
function without(h: usize, from: u64, to: u64): u64 {
  if (from == 0 && to >= granulesOf(h)) return CLEAN;
  if (!reserve(h, paintNeeds(heightOf(h)))) return NO_SLOT;
  store<u64>(h, shareSlot(rootOf(h)), BITMAP_SCRATCH);
  if (from < to) paint(h, h + BITMAP_SCRATCH, heightOf(h), from, to, false);
  return load<u64>(h, BITMAP_SCRATCH);
}

/** Gives a bitmap another size. What is new is clean, what is gone is forgotten. */
export function bitmapResize(h: usize, size: f64): i32 {
  lockBitmap(h);
  const result = resizeLocked(h, <u64><i64>size);
  unlockBitmap(h);
  return result;
}

function resizeLocked(h: usize, size: u64): i32 {
  // Enough to clear what is cut off, or for a root above the root for each missing level.
  if (!reserve(h, paintNeeds(heightOf(h)) + 6)) return ARENA_FULL;
  const before = granulesOf(h);
  const granules = size + (<u64>1 << shiftOfBitmap(h)) - 1 >> shiftOfBitmap(h);
  if (granules < before) paintRoot(h, granules, before, false);
  setGeometry(h, size);
  const height = heightFor(granules);
  while (heightOf(h) < height) raise(h);
  while (heightOf(h) > height) lower(h);
  return OK;
}

/** Puts a node above the root, whose first slot is what the root was. */
function raise(h: usize): void {
  const level = heightOf(h) + 1;
  store<u32>(h, level, BITMAP_HEIGHT);
  if (rootOf(h) == CLEAN) return;
  const node = takeSpare(h);
  for (let i: usize = 1; i < FANOUT; i++) store<u64>(node + (i << 3), CLEAN);
  store<u64>(node, rootOf(h));
  store<u64>(h, nodeSlot(node, load<u64>(h, BITMAP_COUNT), level), BITMAP_ROOT);
}

/** Makes the first slot of the root the root; the others are clean. */
function lower(h: usize): void {
  const level = heightOf(h);
  const root = rootOf(h);
  store<u32>(h, level - 1, BITMAP_HEIGHT);
  if (root == CLEAN) return;
  assert(tagOf(root) == TAG_NODE);
  store<u64>(h, shareSlot(load<u64>(nodeOf(root))), BITMAP_ROOT);
  releaseSlot(root, level);
}
