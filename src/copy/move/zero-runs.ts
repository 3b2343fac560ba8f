import type { BlockDevice, Limits } from '../../block/index.js';
import type { Arena, ArenaBlock } from '../../wasm/index.js';

/** Zeroes are looked for in steps of at least so many bytes: the block size of most file systems. */
export const ZERO_STEP = 4096;

/** In longer steps most of what is zero would not be found. */
const LONGEST_STEP = 64 * 1024;

/** The step for a target: what it zeroes as a whole, from 4 to 64 KiB, but never a part of what it writes at once. */
export function zeroStep({ zeroAlignment, minimum }: Pick<Limits, 'zeroAlignment' | 'minimum'>) {
  return Math.max(ZERO_STEP, minimum, Math.min(LONGEST_STEP, zeroAlignment));
}

/** Shorter zero runs are written as data where zeroing is a request of its own. */
const SHORTEST_ZERO_REQUEST = 64 * 1024;

/** The shortest run of zeroes that is worth not being written as data. */
export function shortestZero(target: BlockDevice, targetIsZero: boolean): number {
  // Leaving out costs nothing, however little it is.
  if (targetIsZero) return 1;
  return Math.max(SHORTEST_ZERO_REQUEST, target.limits.zeroAlignment);
}

/** What to look at. */
export interface ZeroScan {
  arena: Arena;
  block: ArenaBlock;
  /** First byte behind the part of the block that holds anything. */
  end: number;
  /** Zeroes count in whole steps of so many bytes. */
  step: number;
  /** A run of zeroes that is shorter than this is not worth a request, and counts as data. */
  shortest: number;
}

/**
 * The end of the run at `from`, as a positive number if it is zero and as a negative one if it is data.
 * A run of data takes in all short runs of zeroes behind it.
 */
export function nextRun(scan: ZeroScan, from: number): number {
  const { arena, block, end, step, shortest } = scan;
  const zeroes = zeroesAt(scan, from);
  if (zeroes >= shortest) return from + zeroes;
  for (let at = from + zeroes; at < end; ) {
    at -= arena.zeroRun(block, at, end - at, step);
    const gap = zeroesAt(scan, at);
    if (gap >= shortest) return -at;
    at += gap;
  }
  return -end;
}

function zeroesAt({ arena, block, end, step }: ZeroScan, from: number): number {
  return from < end ? Math.max(0, arena.zeroRun(block, from, end - from, step)) : 0;
}
