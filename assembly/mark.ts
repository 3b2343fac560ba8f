/**
 * The short cut of paint.ts for what a busy disk does most: one granule, in a leaf that is there
 * already and that this bitmap alone holds. Nothing can become uniform, nothing must be allocated
 * or copied, so a way down and a second one to correct the counts are all there is to do.
 */
import { BITMAP_COUNT, BITMAP_ROOT } from "./layout";
import { referencesOf } from "./buddy";
import {
  CLEAN, DIRTY, LEAF_BITS, MAX_COUNT_LEVEL, TAG_NODE, addCount, nodeOf, shiftOf, storedCount, tagOf,
} from "./slot";
import { wordAt } from "./leaf";

/** Leaves with fewer dirty granules than this may turn into runs, with more into DIRTY. */
const FEWEST: u64 = 4;

// @ts-ignore: decorator
@inline
function childAt(slot: u64, level: u32, granule: u64): usize {
  return nodeOf(slot) + (<usize>(granule >> shiftOf(level) & 63) << 3);
}

/** Makes one granule dirty or clean, and returns true; or returns false, having changed nothing. */
export function mark(h: usize, height: u32, granule: u64, dirty: bool): bool {
  const uniform = dirty ? DIRTY : CLEAN;
  let owned = true;
  let slot = load<u64>(h, BITMAP_ROOT);
  for (let level = height; level != 0; ) {
    if (tagOf(slot) != TAG_NODE) return slot == uniform;
    owned = owned && referencesOf(nodeOf(slot)) == 1;
    level--;
    slot = load<u64>(childAt(slot, level, granule));
  }
  if (tagOf(slot) != TAG_NODE) return slot == uniform;
  const bit = <u32>granule & LEAF_BITS - 1;
  const at = wordAt(nodeOf(slot), bit);
  const word = load<u64>(at);
  const mask = <u64>1 << (bit & 63);
  if (((word & mask) != 0) == dirty) return true;
  // Below FEWEST the difference wraps around: one comparison for both ends.
  if (!owned || storedCount(slot) - FEWEST > LEAF_BITS - 2 * FEWEST) return false;
  if (referencesOf(nodeOf(slot)) != 1) return false;
  store<u64>(at, word ^ mask);
  addToPath(h, height, granule, dirty ? 1 : -1);
  return true;
}

/** Adds `change` to the count of the bitmap and of every slot on the way to a granule. */
function addToPath(h: usize, height: u32, granule: u64, change: i64): void {
  store<u64>(h, load<u64>(h, BITMAP_COUNT) + change, BITMAP_COUNT);
  let at = h + BITMAP_ROOT;
  for (let level = height; ; ) {
    const slot = load<u64>(at);
    if (level <= MAX_COUNT_LEVEL) store<u64>(at, addCount(slot, change));
    if (level == 0) return;
    level--;
    at = childAt(slot, level, granule);
  }
}
