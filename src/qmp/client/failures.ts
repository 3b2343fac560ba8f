import { LacunaError } from '../../errors/index.js';
import { shown } from '../wire/index.js';

/** Nothing that was sent over the connection can still be carried out. */
export function disconnected(what: string, cause?: unknown): LacunaError {
  return new LacunaError('ERR_QMP_DISCONNECTED', what, { cause, retryable: true });
}

/** The same failure, saying whose it is. */
export function locate(failure: LacunaError, device: string): LacunaError {
  if (failure.device !== undefined) return failure;
  return new LacunaError(failure.code, `${device}: ${failure.message}`, {
    device,
    retryable: failure.retryable,
    cause: failure.cause,
  });
}

/** The peer answered with an error. */
export function refused(
  device: string,
  command: string,
  { errorClass, description }: { errorClass: string; description: string },
): LacunaError {
  return new LacunaError(
    'ERR_QMP_COMMAND',
    `${device} refused "${command}": ${shown(description)} (${shown(errorClass)})`,
    { device, errno: errorClass, description },
  );
}

/** The command was sent, and nobody can tell whether it has been done. */
export function unanswered(device: string, command: string, cause: LacunaError): LacunaError {
  // What only asks may be asked again.
  const retryable = isQuestion(command);
  const advice = retryable
    ? 'it changes nothing, so ask again'
    : 'it may have been carried out, so look before it is sent again';
  return new LacunaError(
    'ERR_QMP_UNANSWERED',
    `${device} did not answer "${command}": ${cause.message}; ${advice}`,
    { device, retryable, cause },
  );
}

function isQuestion(command: string): boolean {
  return command.startsWith('query-');
}
