export { Arena, type ArenaOptions, type SharedArena } from './arena.js';
export { type BitmapHandle, Bits } from './bits.js';
export type { ArenaBlock } from './block.js';
export { L2Decoder } from './l2-decoder.js';
export type { KernelVariant } from './module.js';
export { COUNTER_BYTES, SharedCounters } from './shared-counters.js';
export { ShrinkTest } from './shrink-test.js';
export { zstdLibrary } from './zstd-library.js';
export { zstdInThreads } from './zstd-threads.js';
