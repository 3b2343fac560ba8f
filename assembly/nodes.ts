/**
 * Nodes, leaves and lists: who frees them, and when.
 *
 * A tree of a petabyte may have millions of nodes. Walking it to free it would make `resetAll`
 * slow, so a node whose last reference goes is only pushed on a list (linked through its table
 * entry, since its bytes still name its children). Whoever needs a node next takes it from that
 * list, and passes on one reference of each child first: the cost of freeing is paid in small,
 * bounded pieces by those who allocate.
 */
import {
  ARENA_LOCK, ARENA_PENDING, BITMAP_SPARES, BITMAP_SPARE_HEAD, NODE_BYTES, NODE_ORDER, UNIT_SHIFT,
} from "./layout";
import { ORDER_SHIFT, REFERENCES, allocLocked, entryOf, freeLocked, orderOf } from "./buddy";
import { lock, unlock } from "./lock";
import { holdsBlock, nodeOf } from "./slot";

/** A bitmap keeps this many spare nodes at most; one operation frees few and the next needs few. */
const MAX_SPARES: u32 = 16;

/** Gives back the reference that `slot`, at `level`, holds. */
export function releaseSlot(slot: u64, level: u32): void {
  if (!holdsBlock(slot)) return;
  const unit = <u32>(nodeOf(slot) >> UNIT_SHIFT);
  if ((atomic.sub<u32>(entryOf(unit), 1) & REFERENCES) != 1) return;
  lock(ARENA_LOCK);
  if (level == 0) freeLocked(unit, orderOf(unit));
  else pushPending(unit, level);
  unlock(ARENA_LOCK);
}

/** Takes a reference for a second holder of `slot`. */
export function shareSlot(slot: u64): u64 {
  if (holdsBlock(slot)) {
    atomic.add<u32>(entryOf(<u32>(nodeOf(slot) >> UNIT_SHIFT)), 1);
  }
  return slot;
}

/** Takes a reference for a second holder of each child of a node. */
export function shareChildren(node: usize): void {
  for (let at = node, end = node + NODE_BYTES; at < end; at += 8) shareSlot(load<u64>(at));
}

function pushPending(unit: u32, level: u32): void {
  store<u32>(entryOf(unit), level << ORDER_SHIFT | load<u32>(ARENA_PENDING));
  store<u32>(ARENA_PENDING, unit);
}

/** Takes one node off the pending list and gives back what its slots hold. 0 when there is none. */
function popPending(): u32 {
  const unit = load<u32>(ARENA_PENDING);
  if (unit == 0) return 0;
  const entry = load<u32>(entryOf(unit));
  store<u32>(ARENA_PENDING, entry & REFERENCES);
  store<u32>(entryOf(unit), NODE_ORDER << ORDER_SHIFT | 1);
  const level = (entry >> ORDER_SHIFT) - 1;
  const node = <usize>unit << UNIT_SHIFT;
  for (let at = node, end = node + NODE_BYTES; at < end; at += 8) {
    const slot = load<u64>(at);
    if (!holdsBlock(slot)) continue;
    const child = <u32>(nodeOf(slot) >> UNIT_SHIFT);
    if ((atomic.sub<u32>(entryOf(child), 1) & REFERENCES) != 1) continue;
    if (level == 0) freeLocked(child, orderOf(child));
    else pushPending(child, level);
  }
  return unit;
}

/** Frees all that is pending; false when nothing was. The caller holds ARENA_LOCK. */
export function drainPending(): bool {
  if (load<u32>(ARENA_PENDING) == 0) return false;
  for (let unit = popPending(); unit != 0; unit = popPending()) freeLocked(unit, NODE_ORDER);
  return true;
}

/**
 * Sees to it that bitmap `h` holds at least `count` spare nodes. Returns false, with the spares as
 * they were, when the arena is full.
 */
// @ts-ignore: decorator
@inline
export function reserve(h: usize, count: u32): bool {
  return load<u32>(h, BITMAP_SPARES) >= count ? true : reserveMore(h, count);
}

function reserveMore(h: usize, count: u32): bool {
  const before = load<u32>(h, BITMAP_SPARES);
  lock(ARENA_LOCK);
  let unit: u32 = 1;
  while (unit != 0 && load<u32>(h, BITMAP_SPARES) < count) {
    unit = popPending();
    if (unit == 0) unit = allocLocked(NODE_ORDER);
    if (unit != 0) pushSpare(h, <usize>unit << UNIT_SHIFT);
  }
  while (unit == 0 && load<u32>(h, BITMAP_SPARES) > before) {
    freeLocked(<u32>(takeSpare(h) >> UNIT_SHIFT), NODE_ORDER);
  }
  unlock(ARENA_LOCK);
  return unit != 0;
}

function pushSpare(h: usize, block: usize): void {
  store<u32>(block, load<u32>(h, BITMAP_SPARE_HEAD));
  store<u32>(h, <u32>block, BITMAP_SPARE_HEAD);
  store<u32>(h, load<u32>(h, BITMAP_SPARES) + 1, BITMAP_SPARES);
}

/** A node that `reserve` has promised: one reference, content undefined. */
export function takeSpare(h: usize): usize {
  const block = <usize>load<u32>(h, BITMAP_SPARE_HEAD);
  assert(block != 0);
  store<u32>(h, load<u32>(block), BITMAP_SPARE_HEAD);
  store<u32>(h, load<u32>(h, BITMAP_SPARES) - 1, BITMAP_SPARES);
  return block;
}

/** Gives back a node whose only holder the caller is, and that names no children. */
export function giveSpare(h: usize, block: usize): void {
  if (load<u32>(h, BITMAP_SPARES) < MAX_SPARES) return pushSpare(h, block);
  lock(ARENA_LOCK);
  freeLocked(<u32>(block >> UNIT_SHIFT), NODE_ORDER);
  unlock(ARENA_LOCK);
}

/** Gives all spare nodes back to the arena. */
export function freeSpares(h: usize): void {
  lock(ARENA_LOCK);
  while (load<u32>(h, BITMAP_SPARES) != 0) freeLocked(<u32>(takeSpare(h) >> UNIT_SHIFT), NODE_ORDER);
  unlock(ARENA_LOCK);
}
