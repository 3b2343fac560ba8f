import type { Device } from '../block/index.js';
import type { Arena, ArenaBlock } from '../wasm/index.js';

/** Zeroes are looked for in steps of this many bytes: the block size of most file systems. */
export const ZERO_STEP = 4096;

/** Shorter zero runs are written as data where zeroing is a request of its own. */
const SHORTEST_ZERO_REQUEST = 64 * 1024;

/** The shortest run of zeroes that is worth not being written as data. */
export function shortestZero(target: Device, targetIsZero: boolean): number {
  if (targetIsZero) return ZERO_STEP;
  return Math.max(SHORTEST_ZERO_REQUEST, target.limits.zeroAlignment);
}

/** What to look at. */
export interface ZeroScan {
  arena: Arena;
  block: ArenaBlock;
  /** First byte behind the part of the block that holds anything. */
  end: number;
  /** A run of zeroes that is shorter than this is not worth a request, and counts as data. */
  shortest: number;
}

/**
 * The end of the run at `from`, as a positive number if it is zero and as a negative one if it is data.
 * A run of data takes in all short runs of zeroes behind it.
 */
export function nextRun({ arena, block, end, shortest }: ZeroScan, from: number): number {
  const zeroes = zeroesAt(arena, block, from, end);
  if (zeroes >= shortest) return from + zeroes;
  for (let at = from + zeroes; at < end; ) {
    at -= arena.zeroRun(block, at, end - at, ZERO_STEP);
    const gap = zeroesAt(arena, block, at, end);
    if (gap >= shortest) return -at;
    at += gap;
  }
  return -end;
}

function zeroesAt(arena: Arena, block: ArenaBlock, from: number, end: number): number {
  return from < end ? Math.max(0, arena.zeroRun(block, from, end - from, ZERO_STEP)) : 0;
}
