import type { ArenaBlock } from '../wasm/index.js';

/** Zeroes are looked for in steps of this many bytes: the block size of most file systems. */
export const ZERO_STEP = 4096;
