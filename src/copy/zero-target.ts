/** Makes the target read as zero where the source does, touching nothing that reads as zero already. */
import type { Bitmap } from '../bitmap/index.js';
import type { Device } from '../block/index.js';
import { isAborted, LacunaError } from '../errors/index.js';
import { Context, readsAsZero } from '../extent/index.js';
import { Turns } from '../util/index.js';
import type { Control, Counters } from './control.js';
import { settleAll } from './settle-all.js';
import { walkStatus } from './status-walk.js';

/** Zero requests in flight. */
const REQUESTS = 8;

/** One claim: a cancel takes effect between two of them. */
const CLAIM_BYTES = 2 ** 30;

/** Takes out of `zero` what the target says reads as zero. */
export async function dropKnownZero(
  target: Device,
  zero: Bitmap,
  signal?: AbortSignal,
): Promise<void> {
  if (zero.count === 0 || !target.capabilities.contexts.includes(Context.allocation)) return;
  const asked = zero.snapshot();
  try {
    await walkStatus({
      device: target,
      ranges: asked.ranges(),
      contexts: [Context.allocation],
      signal,
      visit: (offset, length, [status]) => {
        if (readsAsZero(status)) zero.reset(offset, length);
      },
    });
  } finally {
    asked.free();
  }
}

/**
 * Asks for the whole target to be zeroed at once, if that is quick: then only data is left to write.
 * Returns whether it was done; a target that cannot is no worse off, because everything is written anyway.
 */
export async function zeroWhole(
  target: Device,
  length: number,
  signal?: AbortSignal,
): Promise<boolean> {
  if (!target.capabilities.fastZero) return false;
  try {
    await target.zero(0, length, { fast: true, unmap: true, ...(signal && { signal }) });
    return true;
  } catch (error) {
    const refused = error instanceof LacunaError && !isAborted(error) && !error.retryable;
    if (refused) return false;
    throw error;
  }
}

export interface ZeroSide {
  control: Control;
  counters: Counters;
  /** Cleared like `zero`, but only when a piece is done. */
  remains?: Bitmap | undefined;
  signal: AbortSignal;
}

/** Writes zeroes where `zero` says, in the largest pieces, and clears it as they are done. */
export async function writeZeroes(
  target: Device,
  zero: Bitmap,
  { control, counters, remains, signal }: ZeroSide,
): Promise<void> {
  const turns = new Turns();
  const lane = async () => {
    const piece = new Float64Array(2);
    while (!control.stopped && zero.claim(piece, { maxBytes: CLAIM_BYTES }) > 0) {
      const [offset, length] = piece;
      try {
        await turns.next();
        await target.zero(offset, length, { unmap: true, signal });
      } catch (error) {
        zero.set(offset, length);
        control.stop();
        throw error;
      }
      remains?.reset(offset, length);
      counters.requests += 1;
      counters.zeroedBytes += length;
    }
  };
  await settleAll(Array.from({ length: REQUESTS }, lane));
}
