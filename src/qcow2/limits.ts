/** The first four bytes of an image: "QFI" and 0xfb. */
export const MAGIC = 0x514649fb;

/** Stands in its place as long as an image is being made where others see it: "LAC" and 0xfb. Nobody opens it then. */
export const UNFINISHED_MAGIC = 0x4c4143fb;

/** Bytes of a version 2 header, and of the shortest version 3 header. */
export const V2_HEADER_BYTES = 72;
export const V3_HEADER_BYTES = 104;

/** QEMU's limits: images beyond them are refused by it, and so by us. */
export const MIN_CLUSTER_BITS = 9;
export const MAX_CLUSTER_BITS = 21;
export const MIN_EXTENDED_CLUSTER_BITS = 14;
export const MAX_REFCOUNT_ORDER = 6;
export const MAX_BACKING_NAME_BYTES = 1023;
/** Bytes of an L1 table, active or of a snapshot. */
export const MAX_L1_BYTES = 32 * 1024 * 1024;
/** Bytes of the refcount table. */
export const MAX_REFCOUNT_TABLE_BYTES = 8 * 1024 * 1024;
export const MAX_SNAPSHOTS = 65_536;
/** Bytes of the whole snapshot table. */
export const MAX_SNAPSHOT_TABLE_BYTES = 64 * 1024 * 1024;
/** Bytes of extra data in one entry of the snapshot table. */
export const MAX_SNAPSHOT_EXTRA_BYTES = 1024;
export const MAX_BITMAPS = 65_535;
export const MAX_BITMAP_NAME_BYTES = 1023;

/** Host offsets in L1 and L2 entries have 56 bits; we, and exact numbers, end at 2^53 - 1. */
export const MAX_HOST_OFFSET = Number.MAX_SAFE_INTEGER;

/** Subclusters in a cluster of an image with extended L2 entries. */
export const SUBCLUSTERS = 32;
