/**
 * Where everything lives in the shared memory. This file is the only place that knows: JavaScript
 * reads the compiled values from the exported globals, so that no second copy of a number can
 * drift.
 *
 *     0          ARENA header: lock, sizes, heads of the free lists           (page 0)
 *     TABLE      one u32 per 64-byte unit of the whole arena, see buddy.ts
 *     heap       blocks: powers of two of units, aligned to their own size
 *
 * An address is a byte offset (`usize`), a unit is an address divided by 64; unit 0 is the arena
 * header and therefore doubles as "none".
 */

/** Changes whenever two builds of the kernels could not share one memory. */
export const LAYOUT_VERSION: u32 = 2;

export const PAGE_BYTES: u32 = 65536;
export const UNIT_SHIFT: u32 = 6;
export const UNIT_BYTES: u32 = 1 << UNIT_SHIFT;
export const UNITS_PER_PAGE_SHIFT: u32 = 10;
/** The largest block is 1 GiB, 2^24 units: a larger one would need the last page, see initArena. */
export const MAX_ORDER: u32 = 24;

/** Nodes and leaves of a bitmap are blocks of 2^3 units. */
export const NODE_ORDER: u32 = 3;
export const NODE_BYTES: u32 = UNIT_BYTES << NODE_ORDER;

// Arena header.
export const ARENA_MAGIC: u32 = 0x4e43414c;
export const ARENA_VERSION: u32 = 4;
export const ARENA_LOCK: u32 = 64;
/** Units in blocks that somebody holds. */
export const ARENA_USED: u32 = 128;
/** First unit behind the arena. */
export const ARENA_END: u32 = 132;
/** Head of the list of interior nodes whose children still hold references. */
export const ARENA_PENDING: u32 = 140;
/** Bit k is set while the free list of order k has a block. */
export const ARENA_ORDERS: u32 = 144;
/** One u32 for each order: the first unit of the first free block. */
export const ARENA_FREE: u32 = 192;

export const TABLE: u32 = PAGE_BYTES;

// Bitmap header: two units.
export const BITMAP_MAGIC: u32 = 0x504d4243;
export const BITMAP_LOCK: u32 = 4;
export const BITMAP_SIZE: u32 = 8;
export const BITMAP_GRANULES: u32 = 16;
export const BITMAP_COUNT: u32 = 24;
export const BITMAP_ROOT: u32 = 32;
/** Root of a tree under construction, which becomes the root when it is whole. */
export const BITMAP_SCRATCH: u32 = 40;
/** Log2 of the granularity. */
export const BITMAP_SHIFT: u32 = 48;
/** Level of the root slot. */
export const BITMAP_HEIGHT: u32 = 52;
/** Nodes held ready, so that an operation that has begun cannot run out of memory. */
export const BITMAP_SPARES: u32 = 56;
export const BITMAP_SPARE_HEAD: u32 = 60;
/** One unit, where whoever holds the lock puts a list of runs together. */
export const BITMAP_DESK: u32 = 64;
export const BITMAP_BYTES: u32 = 128;

// What kernels answer beside a value that is at least 0.
export const OK: i32 = 0;
export const NONE: i32 = -1;
export const OUT_OF_RANGE: i32 = -2;
export const ARENA_FULL: i32 = -3;
export const MISMATCH: i32 = -4;
export const CORRUPT: i32 = -5;

// How two bitmaps are combined.
export const OP_MERGE: i32 = 0;
export const OP_INTERSECT: i32 = 1;
export const OP_SUBTRACT: i32 = 2;
export const OP_XOR: i32 = 3;
