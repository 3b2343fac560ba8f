import { LacunaError } from '../errors/index.js';

/** The error of a copy that was asked to stop, and has: what it did is durable, what remains is known. */
export function stoppedError(cause?: unknown): LacunaError {
  const message = 'Stopped before it was done: what was in flight has been finished';
  return new LacunaError('ERR_COPY_STOPPED', message, { cause });
}
