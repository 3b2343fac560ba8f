export {
  type ComparedSide,
  type ComparePace,
  compareShare,
} from './comparer.js';
export {
  type BlockDigests,
  DIGEST_BLOCK,
  DIGEST_BYTES,
  DigestTree,
  digestBlocks,
  digestOf,
  digestText,
  parentOf,
  zeroDigest,
} from './digest-tree.js';
export { LeftOut } from './left-out.js';
export { type MoveOutcome, move } from './mover.js';
export type { Ends, Shared, Transfer } from './parts.js';
export { nextRun, shortestZero, zeroStep } from './zero-runs.js';
export { dropKnownZero, writeZeroes } from './zero-target.js';
