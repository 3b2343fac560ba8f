import { LacunaError } from '../../errors/index.js';

/**
 * The error of a copy that was asked to stop, and has: what remains is known.
 *
 * @param cause what failed although the copy was only to finish what was in flight, or had stopped it before
 */
export function stoppedError(cause?: unknown): LacunaError {
  const how =
    cause === undefined
      ? 'what was in flight has been finished'
      : `something had failed: ${cause instanceof Error ? cause.message : String(cause)}`;
  return new LacunaError('ERR_COPY_STOPPED', `Stopped before it was done: ${how}`, { cause });
}
