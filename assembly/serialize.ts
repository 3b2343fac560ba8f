/** Bitmaps to and from the form that qcow2 and QEMU's migration store: one bit for each granule. */
import { ARENA_FULL, BITMAP_COUNT, BITMAP_ROOT, CORRUPT, OK, OUT_OF_RANGE } from "./layout";
import { lockBitmap, granulesOf, heightOf, unlockBitmap, paintRoot, rootOf } from "./bitmap";
import { giveSpare, reserve, takeSpare } from "./nodes";
import { CLEAN, DIRTY, LEAF_BITS, MOST_RUNS, NO_SLOT, TAG_NODE, nodeSlot } from "./slot";
import { countBits } from "./leaf";
import { graft, paintNeeds } from "./paint";
import { packRuns } from "./runs";
import { classifyWords, readWords } from "./words";

/** Words that the bits of a whole bitmap fill. */
// @ts-ignore: decorator
@inline
function wordsOf(h: usize): u64 {
  return granulesOf(h) + 63 >> 6;
}

/** Writes `words` words, from granule `from` (a multiple of 64) on, to `target`. */
export function bitmapReadWords(h: usize, from: f64, words: u32, target: usize): i32 {
  lockBitmap(h);
  const first = <u64><i64>from >> 6;
  let result = OUT_OF_RANGE;
  if (first + words <= wordsOf(h)) {
    readWords(rootOf(h), heightOf(h), first << 6, first + words << 6, target);
    result = OK;
  }
  unlockBitmap(h);
  return result;
}

/** Makes the granules from `from` (a multiple of 64) on what `words` words at `source` say. */
export function bitmapWriteWords(h: usize, from: f64, words: u32, source: usize): i32 {
  lockBitmap(h);
  const first = <u64><i64>from >> 6;
  let result = OUT_OF_RANGE;
  if (first + words <= wordsOf(h)) result = writeLocked(h, first << 6, words, source);
  unlockBitmap(h);
  return result;
}

function writeLocked(h: usize, from: u64, words: u32, source: usize): i32 {
  const end = from + (<u64>words << 6);
  const granules = granulesOf(h);
  if (end > granules) {
    const tail = load<u64>(source + (<usize>(words - 1) << 3)) >> 64 - (end - granules);
    if (tail != 0) return CORRUPT;
  }
  while (from < end) {
    const stop = min((from | LEAF_BITS - 1) + 1, end);
    const bytes = <u32>(stop - from >> 3);
    if (!reserve(h, paintNeeds(heightOf(h)) + 1)) return ARENA_FULL;
    const kind = classifyWords(source, bytes >> 3);
    if (kind == TAG_NODE) writeLeaf(h, from, bytes, source);
    else paintRoot(h, from, stop, kind == DIRTY);
    source += bytes;
    from = stop;
  }
  return OK;
}

/** Replaces `bytes` bytes of the bits of one leaf. */
function writeLeaf(h: usize, from: u64, bytes: u32, source: usize): void {
  const base = from & ~<u64>(LEAF_BITS - 1);
  const leaf = takeSpare(h);
  readWords(rootOf(h), heightOf(h), base, base + LEAF_BITS, leaf);
  memory.copy(leaf + <usize>(from - base >> 3), source, bytes);
  const count = countBits(leaf, 0, LEAF_BITS);
  let slot = packRuns(h, leaf, MOST_RUNS);
  if (slot == NO_SLOT) slot = nodeSlot(leaf, count, 0);
  else giveSpare(h, leaf);
  const grown = graft(h, h + BITMAP_ROOT, heightOf(h), base, slot);
  store<u64>(h, load<u64>(h, BITMAP_COUNT) + grown, BITMAP_COUNT);
}
