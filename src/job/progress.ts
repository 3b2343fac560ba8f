/**
 * `paused`: by its caller, or because of a failure that waits for a human, which `error` tells then. Of jobs of a graph alone:
 * `waiting`, its work is done, and it ends together with others, whose work is not; `pending`, it ends when it is told to by `finalize()`.
 * `stopped`: ended early, by `stop()` or by the signal. `done`, `failed` and `stopped` are for good.
 */
export type JobState = 'running' | 'paused' | 'waiting' | 'pending' | 'done' | 'failed' | 'stopped';

/** A moment of a job. Only completed bytes count. */
export interface JobProgress {
  /** Whether the job goes on by itself, waits, or has ended. */
  state: JobState;
  /** All bytes to do; 0 until that is known. */
  totalBytes: number;
  /** Bytes of those that are done. */
  doneBytes: number;
  /** Bytes of `doneBytes` that earlier runs had done; absent where a job cannot go on from an earlier one. */
  resumedBytes?: number;
  /** Bytes done in each of the last seconds, on average. */
  bytesPerSecond: number;
  /** Time left at that rate; absent while nothing can be said, and of a job that has ended early. */
  remainingMs?: number;
  /** Milliseconds since the job began, pauses included. */
  elapsedMs: number;
  /** What a job in the state `paused` waits for, or why it has `failed` or is `stopped`. */
  error?: Error;
}

/** What every job can be told when it begins. */
export interface JobOptions {
  /**
   * Bytes per second that may be moved: read, written or compared. What is zero or left out by its status costs nothing,
   * and neither do questions. Default: as fast as it goes. `setRate` changes it.
   */
  rate?: number | undefined;
  /** Fires to end the work at once; it fails with ERR_ABORTED. */
  signal?: AbortSignal | undefined;
}

/** The same for the check of options. */
export const JOB_OPTIONS = { rate: 'any', signal: 'signal' } as const;

/** @throws RangeError for an invalid rate; undefined stands for no limit. */
export function checkRate(rate: number | undefined): void {
  if (rate === undefined || (rate >= 1 && rate <= Number.MAX_SAFE_INTEGER)) return;
  throw new RangeError(
    `a rate must be a number of bytes per second from 1 to ${Number.MAX_SAFE_INTEGER}, not ${rate}`,
  );
}
