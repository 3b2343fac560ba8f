import { LacunaError } from '../errors/index.js';

/**
 * The error of a job that was asked to stop, and has.
 *
 * @param cause what failed although the job was only to finish what was in flight, or what it waited for
 */
export function stoppedError(cause?: unknown): LacunaError {
  const how =
    cause === undefined
      ? 'what was in flight has been finished'
      : `something had failed: ${cause instanceof Error ? cause.message : String(cause)}`;
  return new LacunaError('ERR_JOB_STOPPED', `Stopped before it was done: ${how}`, { cause });
}

/** Whether an error says that a job was asked to stop. */
export function isStopped(error: unknown): boolean {
  return error instanceof LacunaError && error.code === 'ERR_JOB_STOPPED';
}
