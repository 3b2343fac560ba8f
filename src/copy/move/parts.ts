/** What the loop that moves data works with. Each part is handed on whole to the functions that read it. */
import type { Bitmap } from '../../bitmap/index.js';
import type { BlockDevice } from '../../block/index.js';
import type { Arena } from '../../wasm/index.js';
import type { Control, Counters } from '../control/index.js';
import type { DetectZeroes, ErrorRules } from '../options/index.js';
import type { LeftOut } from './left-out.js';
import type { PaceRange } from './pace.js';

/** The two devices, as one thread has them open. */
export interface Ends {
  source: BlockDevice;
  target: BlockDevice;
}

/** Where it is noted what failed at last and was left out. */
export interface Losses {
  /** Takes the ranges. */
  leftOut: LeftOut;
  /** Marks them too, so that they can be tried again; as fine as the plan. */
  leftOutMap: Bitmap;
}

/** What is to be moved, and what has become of it. */
export interface Work extends Losses {
  plan: Bitmap;
  /** What of the plan is known to read as zero, and is not read. */
  unread?: Bitmap | undefined;
  /** Beside the plan: what is not known to have reached the target, what is in flight included. */
  remains?: Bitmap | undefined;
  /** Told of every piece that reached the target, once; the bytes are its own only during the call. */
  moved?: ((offset: number, bytes: Uint8Array) => void) | undefined;
}

/** What is done about failures. */
export interface FailurePolicy {
  rules: ErrorRules;
  /** Whether zeroing what could not be read may make holes. */
  unmap: boolean;
}

/** What is done about failures and zeroes; plain data, so that it can be posted to a worker. */
export interface Policy extends FailurePolicy {
  detectZeroes: DetectZeroes;
  /** Every byte of the target that the plan holds reads as zero now. */
  targetIsZero: boolean;
}

/** How one thread drives its two devices; plain data, so that it can be posted to a worker. */
export interface Transfer {
  pace: PaceRange;
  policy: Policy;
  /** Bytes of the plan that are claimed at once. */
  windowSize: number;
  /** Write in the order of offsets; for one thread alone. */
  sequential: boolean;
  /** Flush the target when this thread has moved its share. */
  flush: boolean;
}

/** What a thread shares with the others, and how it is ended. */
export interface Shared {
  arena: Arena;
  control: Control;
  /** Its own. */
  counters: Counters;
  signal: AbortSignal;
}
