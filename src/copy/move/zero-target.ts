/** Makes the target read as zero where the source does, touching nothing that reads as zero already. */
import type { Bitmap } from '../../bitmap/index.js';
import type { BlockDevice } from '../../block/index.js';
import { throwIfAborted } from '../../errors/index.js';
import { Context, readsAsZero } from '../../extent/index.js';
import { alignDown, alignUp, Lanes } from '../../util/index.js';
import { onSide } from '../options/index.js';
import { walkStatus } from '../plan/index.js';
import type { FailurePolicy, Losses, Shared, Work } from './parts.js';
import { Repeater } from './repeater.js';

/** Zero requests in flight: there are many short ones where a disk holds much in little pieces. */
const REQUESTS = 64;

/** One claim: a cancel takes effect between two of them. */
const CLAIM_BYTES = 2 ** 30;

/** Takes out of `zero` what the target says reads as zero, in whole units of what it zeroes as a whole. */
export async function dropKnownZero(
  target: BlockDevice,
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
        if (!readsAsZero(status)) return;
        const end = offset + length;
        const unit = target.limits.zeroAlignment;
        const from = alignUp(offset, unit);
        const to = end === target.size ? end : alignDown(end, unit);
        if (from < to) zero.reset(from, to - from);
      },
    });
  } finally {
    asked.free();
  }
}

/** What is to be zeroed; `remains` is cleared like `zero`, but only when a piece is done. */
export interface ZeroWork extends Losses, Pick<Work, 'remains'> {
  zero: Bitmap;
}

/**
 * Writes zeroes where `zero` says, in the largest pieces, and clears it as they are done; until the control says
 * stop, or a request fails for good.
 */
export async function writeZeroes(
  target: BlockDevice,
  work: ZeroWork,
  policy: FailurePolicy,
  shared: Omit<Shared, 'arena'>,
): Promise<void> {
  const { zero, remains } = work;
  const { unmap } = policy;
  const { control, counters, signal } = shared;
  const repeater = new Repeater(target, work, policy, shared);
  const request = async (offset: number, length: number) => {
    await onSide('target', target.zero(offset, length, { unmap, signal }));
    remains?.reset(offset, length);
    counters.requests += 1;
    counters.zeroedBytes += length;
  };
  const step = async (piece: Float64Array) => {
    if (!(await control.mayGo())) return false;
    if (zero.claim(piece, { maxBytes: CLAIM_BYTES }) === 0) return false;
    const { bytes, error } = await repeater.run(piece[0], piece[1], request);
    if (bytes < piece[1]) zero.set(piece[0] + bytes, piece[1] - bytes);
    if (error === undefined) return true;
    control.stop();
    throw error;
  };
  await new Lanes().run({ count: REQUESTS, open: () => new Float64Array(2), step });
  throwIfAborted(signal);
}
