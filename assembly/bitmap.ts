/**
 * Bitmaps as the outside sees them: a header, a lock, and operations in bytes.
 *
 * Offsets and lengths arrive as f64 that are whole and at least 0 (JavaScript has checked that,
 * since only it can say what was wrong); whether they lie inside the bitmap is checked here, under
 * the lock, because another thread may resize at any time.
 */
import {
  ARENA_FULL, ARENA_ORDERS, BITMAP_BYTES, BITMAP_COUNT, BITMAP_GRANULES, BITMAP_HEIGHT, BITMAP_LOCK, BITMAP_MAGIC,
  BITMAP_ROOT, BITMAP_SHIFT, BITMAP_SIZE, NODE_BYTES, OK, OUT_OF_RANGE, PAGE_BYTES,
  UNIT_BYTES,
} from "./layout";
import { alloc, releaseReference, freeBlock, referencesOf, retain } from "./buddy";
import { lock, unlock } from "./lock";
import { freeSpares, releaseSlot, reserve, shareSlot } from "./nodes";
import { CLEAN, capacityOf } from "./slot";
import { paint, paintNeeds } from "./paint";
import { isDirty } from "./search";
import { mark } from "./mark";

// @ts-ignore: decorator
@inline
export function lockBitmap(h: usize): void {
  lock(h + BITMAP_LOCK);
}

// @ts-ignore: decorator
@inline
export function unlockBitmap(h: usize): void {
  unlock(h + BITMAP_LOCK);
}

// @ts-ignore: decorator
@inline
export function rootOf(h: usize): u64 {
  return load<u64>(h, BITMAP_ROOT);
}

// @ts-ignore: decorator
@inline
export function heightOf(h: usize): u32 {
  return load<u32>(h, BITMAP_HEIGHT);
}

// @ts-ignore: decorator
@inline
export function granulesOf(h: usize): u64 {
  return load<u64>(h, BITMAP_GRANULES);
}

// @ts-ignore: decorator
@inline
export function sizeOf(h: usize): u64 {
  return load<u64>(h, BITMAP_SIZE);
}

// @ts-ignore: decorator
@inline
export function shiftOfBitmap(h: usize): u64 {
  return load<u32>(h, BITMAP_SHIFT);
}

/**
 * First granule that begins at or behind byte `offset`; the end of the bitmap counts as a
 * beginning.
 */
export function granuleFrom(h: usize, offset: u64): u64 {
  const shift = shiftOfBitmap(h);
  return offset + (<u64>1 << shift) - 1 >> shift;
}

/** First granule that ends behind byte `offset`, the last one ending with the bitmap. */
export function granuleUpTo(h: usize, offset: u64): u64 {
  return offset >= sizeOf(h) ? granulesOf(h) : offset >> shiftOfBitmap(h);
}

/** The level at which one slot holds `granules`. */
export function heightFor(granules: u64): u32 {
  let height: u32 = 0;
  while (capacityOf(height) < granules) height++;
  return height;
}

export function setGeometry(h: usize, size: u64): void {
  const shift = shiftOfBitmap(h);
  // Read without the lock, so it must never be seen in halves.
  atomic.store<u64>(h, size, BITMAP_SIZE);
  store<u64>(h, size + (<u64>1 << shift) - 1 >> shift, BITMAP_GRANULES);
}

/** A clean bitmap with one holder, or 0. */
export function bitmapCreate(size: f64, shift: u32): usize {
  const h = alloc(BITMAP_BYTES);
  if (h == 0) return 0;
  memory.fill(h, 0, BITMAP_BYTES);
  store<u32>(h, shift, BITMAP_SHIFT);
  setGeometry(h, <u64><i64>size);
  store<u32>(h, heightFor(granulesOf(h)), BITMAP_HEIGHT);
  store<u32>(h, BITMAP_MAGIC);
  return h;
}

/** One holder more; 0 when no bitmap is there. */
export function bitmapAttach(h: usize): u32 {
  if (h == 0 || (h & BITMAP_BYTES - 1) != 0 || h / PAGE_BYTES >= <usize>memory.size()) return 0;
  if (load<u32>(h) != BITMAP_MAGIC || referencesOf(h) == 0) return 0;
  retain(h);
  return 1;
}

/** One holder less; the last one frees it all. */
export function bitmapFree(h: usize): void {
  if (!releaseReference(h)) return;
  store<u32>(h, 0);
  releaseSlot(rootOf(h), heightOf(h));
  freeSpares(h);
  freeBlock(h);
}

/** A second bitmap with the same content, which shares every node; or 0. */
export function bitmapSnapshot(h: usize): usize {
  const copy = alloc(BITMAP_BYTES);
  if (copy == 0) return 0;
  memory.fill(copy, 0, BITMAP_BYTES);
  lockBitmap(h);
  store<u32>(copy, load<u32>(h, BITMAP_SHIFT), BITMAP_SHIFT);
  store<u32>(copy, heightOf(h), BITMAP_HEIGHT);
  atomic.store<u64>(copy, sizeOf(h), BITMAP_SIZE);
  store<u64>(copy, granulesOf(h), BITMAP_GRANULES);
  store<u64>(copy, load<u64>(h, BITMAP_COUNT), BITMAP_COUNT);
  store<u64>(copy, shareSlot(rootOf(h)), BITMAP_ROOT);
  unlockBitmap(h);
  store<u32>(copy, BITMAP_MAGIC);
  return copy;
}

export function bitmapSize(h: usize): f64 {
  return <f64><i64>atomic.load<u64>(h, BITMAP_SIZE);
}

export function bitmapShift(h: usize): u32 {
  return load<u32>(h, BITMAP_SHIFT);
}

/** Under the lock, since an atomic store of the count would cost every set as much as a lock does. */
export function bitmapCount(h: usize): f64 {
  lockBitmap(h);
  const count = <f64><i64>load<u64>(h, BITMAP_COUNT);
  unlockBitmap(h);
  return count;
}

/** Dirty bytes; what a partial last granule lacks is not counted. */
export function bitmapDirtyBytes(h: usize): f64 {
  lockBitmap(h);
  let bytes = load<u64>(h, BITMAP_COUNT) << shiftOfBitmap(h);
  const excess = (granulesOf(h) << shiftOfBitmap(h)) - sizeOf(h);
  if (excess != 0 && isDirty(rootOf(h), heightOf(h), granulesOf(h) - 1)) bytes -= excess;
  unlockBitmap(h);
  return <f64><i64>bytes;
}

/** Makes granules dirty or clean, and counts; the spares must be there. */
// @ts-ignore: decorator
@inline
export function paintRoot(h: usize, from: u64, to: u64, dirty: bool): void {
  const grown = paint(h, h + BITMAP_ROOT, heightOf(h), from, to, dirty);
  store<u64>(h, load<u64>(h, BITMAP_COUNT) + grown, BITMAP_COUNT);
}

/** Makes granules `from` up to `to` (not empty) dirty or clean. */
function stroke(h: usize, from: u64, to: u64, dirty: bool): i32 {
  const height = heightOf(h);
  if (to - from == 1 && mark(h, height, from, dirty)) return OK;
  if (!reserve(h, paintNeeds(height))) return ARENA_FULL;
  paintRoot(h, from, to, dirty);
  return OK;
}

/** Makes every granule that the range touches dirty. */
export function bitmapSet(h: usize, offset: f64, length: f64): i32 {
  lockBitmap(h);
  const result = setLocked(h, offset, length);
  unlockBitmap(h);
  return result;
}

// @ts-ignore: decorator
@inline
function setLocked(h: usize, offset: f64, length: f64): i32 {
  if (offset + length > <f64><i64>sizeOf(h)) return OUT_OF_RANGE;
  if (length == 0) return OK;
  const start = <u64><i64>offset;
  const shift = shiftOfBitmap(h);
  return stroke(h, start >> shift, (start + <u64><i64>length - 1 >> shift) + 1, true);
}

/** Makes every granule that lies wholly in the range clean. */
export function bitmapReset(h: usize, offset: f64, length: f64): i32 {
  lockBitmap(h);
  const result = resetLocked(h, offset, length);
  unlockBitmap(h);
  return result;
}

function resetLocked(h: usize, offset: f64, length: f64): i32 {
  const end = offset + length;
  if (end > <f64><i64>sizeOf(h)) return OUT_OF_RANGE;
  const start = <u64><i64>offset;
  const shift = shiftOfBitmap(h);
  const from = start >> shift;
  // One whole granule, which most resets are, needs no rounding and mostly no painting.
  if (from << shift == start && length == <f64>(<i64>1 << shift)) {
    return mark(h, heightOf(h), from, false) ? OK : stroke(h, from, from + 1, false);
  }
  const first = granuleFrom(h, start);
  const to = granuleUpTo(h, <u64><i64>end);
  if (first >= to || length == 0) return OK;
  return stroke(h, first, to, false);
}

export function bitmapFill(h: usize, dirty: bool): i32 {
  lockBitmap(h);
  let result = OK;
  if (granulesOf(h) != 0) {
    if (!dirty) clearRoot(h);
    else if (reserve(h, paintNeeds(heightOf(h)))) paintRoot(h, 0, granulesOf(h), true);
    else result = ARENA_FULL;
  }
  unlockBitmap(h);
  return result;
}

/**
 * Cheaper than painting, since the right edge needs no path of its own, and never out of memory.
 */
function clearRoot(h: usize): void {
  const root = rootOf(h);
  store<u64>(h, CLEAN, BITMAP_ROOT);
  store<u64>(h, 0, BITMAP_COUNT);
  releaseSlot(root, heightOf(h));
}

/**
 * Sets `count` granules, by the offsets in an array of f64, under one lock. Returns how many were
 * done; fewer when the next one lies outside or the arena is full.
 */
export function bitmapSetMany(h: usize, offsets: usize, count: u32): u32 {
  lockBitmap(h);
  let done: u32 = 0;
  for (; done < count; done++) {
    const offset = load<f64>(offsets + (<usize>done << 3));
    if (setLocked(h, offset, 1) != OK) break;
  }
  unlockBitmap(h);
  return done;
}

/**
 * Whether the arena surely has room for `count` strokes that have not been made yet. A stroke needs at most
 * paintNeeds, and all of them together no more than the whole tree; one free block holds twice as many, as lists
 * may have the place of nodes.
 */
export function bitmapHasRoom(h: usize, count: u32): u32 {
  lockBitmap(h);
  const height = heightOf(h);
  const strokes = <u64>count * paintNeeds(height);
  let tree: u64 = height + 1;
  for (let level: u32 = 0; level <= height; level++) tree += granulesOf(h) / capacityOf(level) + 1;
  unlockBitmap(h);
  const orders = load<u32>(ARENA_ORDERS);
  if (orders == 0) return 0;
  const largest = <u64>UNIT_BYTES << <u64>(31 - clz<u32>(orders));
  return u32(min(strokes, tree) * 2 * NODE_BYTES <= largest);
}

/** As bitmapSetMany, with pairs of offset and length. */
export function bitmapSetRanges(h: usize, pairs: usize, count: u32): u32 {
  lockBitmap(h);
  let done: u32 = 0;
  for (; done < count; done++) {
    const at = pairs + (<usize>done << 4);
    if (setLocked(h, load<f64>(at), load<f64>(at, 8)) != OK) break;
  }
  unlockBitmap(h);
  return done;
}
