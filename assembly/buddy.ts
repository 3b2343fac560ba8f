/**
 * The allocator: a buddy system over 64-byte units, with a reference count on every block.
 *
 * TABLE holds one u32 per unit; only the first unit of a block has one that is not 0:
 *
 *     31    30..26   25..0
 *     free  order    references          a block of 2^order units
 *     0     level    next unit           an interior node on the pending list, see nodes.ts
 *
 * Free blocks of one order form a doubly linked list through their own first eight bytes (next,
 * previous; units), so that a buddy is unlinked in constant time when two halves join. ARENA_ORDERS
 * has a bit for each list that is not empty: finding the smallest block that fits is one `ctz`.
 *
 * Everything here but `retain` and the counting half of `release` happens under ARENA_LOCK.
 * References are atomic because bitmaps with different locks share nodes.
 */
import {
  ARENA_END, ARENA_FREE, ARENA_LOCK, ARENA_MAGIC, ARENA_ORDERS, ARENA_USED,
  ARENA_VERSION, LAYOUT_VERSION, MAX_ORDER, PAGE_BYTES, TABLE, UNITS_PER_PAGE_SHIFT, UNIT_BYTES,
  UNIT_SHIFT,
} from "./layout";
import { lock, unlock } from "./lock";
import { drainPending } from "./nodes";

const FREE: u32 = 1 << 31;
export const ORDER_SHIFT: u32 = 26;
export const REFERENCES: u32 = (1 << ORDER_SHIFT) - 1;

// @ts-ignore: decorator
@inline
export function entryOf(unit: u32): usize {
  return <usize>TABLE + (<usize>unit << 2);
}

// @ts-ignore: decorator
@inline
function addressOf(unit: u32): usize {
  return <usize>unit << UNIT_SHIFT;
}

/**
 * Lays out a new memory: what lies behind the table is free.
 *
 * The memory has its full size from the start and never grows. Pages that nobody touches cost nothing,
 * whereas growth is not seen by the other threads until their engine gets round to it: until then they
 * would trap on a block that this one has just given them, with the lock held.
 */
export function initArena(): void {
  const end: u32 = <u32>memory.size() << UNITS_PER_PAGE_SHIFT;
  const tableBytes: u32 = end << 2;
  const first: u32 = 1 + (tableBytes + PAGE_BYTES - 1) / PAGE_BYTES << UNITS_PER_PAGE_SHIFT;
  store<u32>(ARENA_END, end);
  store<u32>(ARENA_VERSION, LAYOUT_VERSION);
  addRegion(first, end);
  store<u32>(0, ARENA_MAGIC);
}

/** Whether this memory was laid out by kernels of the same layout. */
export function isArena(): u32 {
  return u32(load<u32>(0) == ARENA_MAGIC && load<u32>(ARENA_VERSION) == LAYOUT_VERSION);
}

/**
 * A block of at least `bytes` bytes with one reference; 0, and nothing changed, when there is none.
 */
export function alloc(bytes: u32): usize {
  if (bytes > UNIT_BYTES << MAX_ORDER) return 0;
  const units = bytes <= UNIT_BYTES ? 1 : (bytes - 1 >> UNIT_SHIFT) + 1;
  const order = units == 1 ? 0 : 32 - clz<u32>(units - 1);
  lock(ARENA_LOCK);
  const unit = allocLocked(order);
  unlock(ARENA_LOCK);
  return addressOf(unit);
}

/** One more holder of a block. */
export function retain(address: usize): void {
  const before = atomic.add<u32>(entryOf(<u32>(address >> UNIT_SHIFT)), 1);
  assert((before & REFERENCES) != 0 && (before & FREE) == 0);
}

/** One holder less; the block of the last one is free again. */
export function release(address: usize): void {
  if (releaseReference(address)) freeBlock(address);
}

/** One holder less; true for the last one, who then has the block for himself and must free it. */
export function releaseReference(address: usize): bool {
  const before = atomic.sub<u32>(entryOf(<u32>(address >> UNIT_SHIFT)), 1);
  assert((before & REFERENCES) != 0 && (before & FREE) == 0);
  return (before & REFERENCES) == 1;
}

/** Frees a block that has no references left. */
export function freeBlock(address: usize): void {
  const unit = <u32>(address >> UNIT_SHIFT);
  lock(ARENA_LOCK);
  freeLocked(unit, orderOf(unit));
  unlock(ARENA_LOCK);
}

/** The order of a block that somebody holds, or whose last reference is gone. */
// @ts-ignore: decorator
@inline
export function orderOf(unit: u32): u32 {
  return load<u32>(entryOf(unit)) >> ORDER_SHIFT;
}

/** Holders of a block. */
// @ts-ignore: decorator
@inline
export function referencesOf(address: usize): u32 {
  return atomic.load<u32>(entryOf(<u32>(address >> UNIT_SHIFT))) & REFERENCES;
}

/** Bytes in blocks that somebody holds. */
export function usedBytes(): f64 {
  lock(ARENA_LOCK);
  drainPending();
  const units = load<u32>(ARENA_USED);
  unlock(ARENA_LOCK);
  return <f64>units * UNIT_BYTES;
}

/** The first unit of a block of `order`, or 0. The caller holds ARENA_LOCK. */
export function allocLocked(order: u32): u32 {
  let unit = takeFree(order);
  if (unit == 0 && drainPending()) unit = takeFree(order);
  if (unit == 0) return 0;
  store<u32>(entryOf(unit), order << ORDER_SHIFT | 1);
  store<u32>(ARENA_USED, load<u32>(ARENA_USED) + (1 << order));
  return unit;
}

/** Frees a block that has no references left. The caller holds ARENA_LOCK. */
export function freeLocked(unit: u32, order: u32): void {
  store<u32>(ARENA_USED, load<u32>(ARENA_USED) - (1 << order));
  joinFree(unit, order);
}

/** Adds a block to the free lists, joined with its buddy for as long as that is free as well. */
function joinFree(unit: u32, order: u32): void {
  const end = load<u32>(ARENA_END);
  store<u32>(entryOf(unit), 0);
  while (order < MAX_ORDER) {
    const buddy = unit ^ 1 << order;
    if (buddy >= end || load<u32>(entryOf(buddy)) != (FREE | order << ORDER_SHIFT)) break;
    unlinkFree(buddy, order);
    store<u32>(entryOf(buddy), 0);
    unit &= ~(1 << order);
    order++;
  }
  pushFree(unit, order);
}

/**
 * Unlinks the smallest free block of at least `order` and gives back the halves that are not
 * needed.
 */
function takeFree(order: u32): u32 {
  const orders = load<u32>(ARENA_ORDERS) >> order;
  if (orders == 0) return 0;
  let found = order + ctz<u32>(orders);
  const unit = load<u32>(ARENA_FREE + (found << 2));
  unlinkFree(unit, found);
  while (found > order) {
    found--;
    pushFree(unit + (1 << found), found);
  }
  return unit;
}

function pushFree(unit: u32, order: u32): void {
  const head: usize = ARENA_FREE + (order << 2);
  const next = load<u32>(head);
  store<u32>(addressOf(unit), next);
  store<u32>(addressOf(unit), 0, 4);
  if (next != 0) store<u32>(addressOf(next), unit, 4);
  store<u32>(head, unit);
  store<u32>(ARENA_ORDERS, load<u32>(ARENA_ORDERS) | 1 << order);
  store<u32>(entryOf(unit), FREE | order << ORDER_SHIFT);
}

function unlinkFree(unit: u32, order: u32): void {
  const next = load<u32>(addressOf(unit));
  const previous = load<u32>(addressOf(unit), 4);
  if (next != 0) store<u32>(addressOf(next), previous, 4);
  if (previous != 0) {
    store<u32>(addressOf(previous), next);
    return;
  }
  store<u32>(ARENA_FREE + (order << 2), next);
  if (next == 0) store<u32>(ARENA_ORDERS, load<u32>(ARENA_ORDERS) & ~(1 << order));
}

/**
 * Gives the units from `unit` to `end` to the free lists, as the largest aligned blocks there are.
 */
function addRegion(unit: u32, end: u32): void {
  while (unit < end) {
    const order = min(min(ctz<u32>(unit), 31 - clz<u32>(end - unit)), MAX_ORDER);
    joinFree(unit, order);
    unit += 1 << order;
  }
}
