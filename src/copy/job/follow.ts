import type { CopyProgress, CopyReport } from '../options/index.js';
import type { CopyJob } from './job.js';

/** Tells how far a copy is until it ends, and returns its report. Where the listener throws, the copy is ended first. */
export async function follow(
  job: CopyJob,
  listener: (progress: CopyProgress) => void,
): Promise<CopyReport> {
  try {
    for await (const progress of job) listener(progress);
  } catch (error) {
    // Nothing may go on behind the caller's back; where the copy itself has failed, it has ended.
    job.stop();
    await job.catch(() => {});
    throw error;
  }
  return await job;
}
