import { setTimeout } from 'node:timers/promises';
import { abortedError } from '../../errors/index.js';

/** The longest time that a timer of Node counts. */
const LONGEST_MS = 2 ** 31 - 1;

/** Waits for some milliseconds; none for 0 and less. @throws LacunaError ERR_ABORTED when the signal fires. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  for (let left = ms; left > 0; left -= LONGEST_MS) {
    try {
      await setTimeout(Math.min(left, LONGEST_MS), undefined, { ...(signal && { signal }) });
    } catch (error) {
      if (signal?.aborted) throw abortedError(signal);
      throw error;
    }
  }
}
