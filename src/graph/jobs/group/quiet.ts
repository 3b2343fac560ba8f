import { setTimeout as sleep } from 'node:timers/promises';
import { LacunaError } from '../../../errors/index.js';
import type { JobControl } from '../../../job/index.js';

/** Ends a job in its graph. Where writers do not come to an end, a human is asked, and then it is tried again. */
export async function endAtLast(end: () => Promise<void>, control: JobControl): Promise<void> {
  for (;;) {
    const began = performance.now();
    try {
      return await end();
    } catch (error) {
      if (!isBusy(error)) throw error;
      if (!control.ending.aborted) await control.waitAbout(error).catch(() => {});
      // Once the job is to end there is nobody to ask. The guest, who was held up meanwhile, works for as long as that has taken.
      else await sleep(performance.now() - began);
    }
  }
}

/** Whether requests in flight did not end in time. */
export function isBusy(error: unknown): error is LacunaError {
  return error instanceof LacunaError && error.code === 'ERR_GRAPH_BUSY';
}
