/**
 * Leaves: 4096 bits in 64 little-endian words, bit 0 of word 0 first. Plain loads and stores,
 * because nobody touches a leaf without the lock of the one bitmap that may write it.
 */
import { LEAF_BITS, DIRTY, runCount, runEnd, runStart } from "./slot";
import { NODE_BYTES } from "./layout";

// @ts-ignore: decorator
@inline
export function wordAt(leaf: usize, bit: u32): usize {
  return leaf + (<usize>(bit >> 6) << 3);
}

/** The bits of one word from `from` (0 to 63) up to `to` (1 to 64). */
// @ts-ignore: decorator
@inline
export function maskOf(from: u32, to: u32): u64 {
  return ~(<u64>0) << from & ~(<u64>0) >> 64 - to;
}

/** Makes the bits from `from` up to `to` all 1 or all 0; returns how many changed. */
export function paintBits(leaf: usize, from: u32, to: u32, dirty: bool): u32 {
  let changed: u64 = 0;
  while (from < to) {
    const at = wordAt(leaf, from);
    const stop = min((from | 63) + 1, to);
    const mask = maskOf(from & 63, stop - (from & ~63));
    const word = load<u64>(at);
    changed += popcnt<u64>(mask & (dirty ? ~word : word));
    store<u64>(at, dirty ? word | mask : word & ~mask);
    from = stop;
  }
  return <u32>changed;
}

/** Turns every bit from `from` up to `to` over. */
export function flipBits(leaf: usize, from: u32, to: u32): void {
  while (from < to) {
    const at = wordAt(leaf, from);
    const stop = min((from | 63) + 1, to);
    store<u64>(at, load<u64>(at) ^ maskOf(from & 63, stop - (from & ~63)));
    from = stop;
  }
}

/** Bits that are 1 from `from` up to `to`. */
export function countBits(leaf: usize, from: u32, to: u32): u32 {
  let count: u64 = 0;
  while (from < to) {
    const stop = min((from | 63) + 1, to);
    count += popcnt<u64>(load<u64>(wordAt(leaf, from)) & maskOf(from & 63, stop - (from & ~63)));
    from = stop;
  }
  return <u32>count;
}

/** First bit at or behind `from` that is 1 (`dirty`) or 0; -1 when the leaf has none. */
export function findBit(leaf: usize, from: u32, dirty: bool): i64 {
  const flip: u64 = dirty ? 0 : ~(<u64>0);
  let word = (load<u64>(wordAt(leaf, from)) ^ flip) & ~(<u64>0) << (from & 63);
  let base = from & ~63;
  while (word == 0) {
    base += 64;
    if (base == LEAF_BITS) return -1;
    word = load<u64>(wordAt(leaf, base)) ^ flip;
  }
  return <i64>(base + <u32>ctz<u64>(word));
}

/** Index of the `rank`-th bit (from 0) that is 1; there must be one. */
export function selectBit(leaf: usize, rank: u32): u32 {
  for (let base: u32 = 0; base < LEAF_BITS; base += 64) {
    let word = load<u64>(wordAt(leaf, base));
    const count = <u32>popcnt<u64>(word);
    if (rank >= count) {
      rank -= count;
      continue;
    }
    while (rank-- != 0) word &= word - 1;
    return base + <u32>ctz<u64>(word);
  }
  assert(false);
  return 0;
}

/** Fills a block with what a slot of level 0 that is no leaf says. */
export function expandRuns(leaf: usize, slot: u64): void {
  memory.fill(leaf, slot == DIRTY ? 0xff : 0, NODE_BYTES);
  if (slot <= DIRTY) return;
  for (let i: u32 = 0, n = runCount(slot); i < n; i++) {
    paintBits(leaf, runStart(slot, i), runEnd(slot, i), true);
  }
}
