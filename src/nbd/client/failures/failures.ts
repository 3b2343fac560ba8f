import { LacunaError } from '../../../errors/index.js';
import type { Range } from '../../../extent/index.js';
import { counted } from '../../../util/index.js';
import { type Asked, Command, decodeText, errnoName, printable } from '../../wire/index.js';

/** The peer said something that the protocol forbids; the stream cannot be trusted any further. */
export function violation(what: string): LacunaError {
  return new LacunaError('ERR_NBD_PROTOCOL', `the server broke the NBD protocol: ${what}`);
}

/** The connection is gone, or was never made. */
export function disconnected(why: string, cause?: unknown): LacunaError {
  const { code } = (cause ?? {}) as { code?: unknown };
  return new LacunaError('ERR_NBD_DISCONNECTED', why, {
    retryable: true,
    ...(typeof code === 'string' && { errno: code }),
    cause,
  });
}

const VERBS: Readonly<Record<number, string>> = {
  [Command.read]: 'read',
  [Command.write]: 'write',
  [Command.flush]: 'flush',
  [Command.trim]: 'trim',
  [Command.cache]: 'read ahead',
  [Command.writeZeroes]: 'write zeroes to',
  [Command.blockStatus]: 'tell the status of',
};

/** Errors that say nothing about the request itself: memory may come back, a device may recover. */
const PASSING = new Set(['EIO', 'ENOMEM', 'ESHUTDOWN']);

/** The server answered a request with an error. */
export function remoteError(request: Asked, value: number, text?: Uint8Array): LacunaError {
  const errno = errnoName(value);
  const words = text === undefined ? '' : printable(decodeText(text));
  const quoted = words === '' ? '' : ` ("${words}")`;
  return new LacunaError(
    'ERR_NBD_REMOTE',
    `the server refused to ${describeRequest(request)}: ${errno}${quoted}`,
    { errno, retryable: PASSING.has(errno), offset: request.offset, length: request.length },
  );
}

/** A request in words, to stand behind "to". */
export function describeRequest({ command, offset, length }: Asked): string {
  const verb = VERBS[command] ?? `run command ${command} on`;
  return command === Command.flush ? verb : `${verb} ${counted(length, 'byte')} at ${offset}`;
}

/** The same failure, saying to which device and, where there is one, to which range it happened. */
export function locate(failure: unknown, device: string, range?: Range): LacunaError {
  const error = asLacunaError(failure);
  // Checked by field, not by text: the message of a failure that is passed on is prefixed only once.
  const message = error.device === undefined ? `${device}: ${error.message}` : error.message;
  return new LacunaError(error.code, message, {
    device,
    retryable: error.retryable,
    ...(error.errno !== undefined && { errno: error.errno }),
    ...(range !== undefined && { offset: range.offset, length: range.length }),
    cause: error.device === undefined ? error.cause : error,
  });
}

function asLacunaError(failure: unknown): LacunaError {
  if (failure instanceof LacunaError) return failure;
  const text = failure instanceof Error ? failure.message : String(failure);
  return new LacunaError('ERR_NBD_PROTOCOL', `its bytes could not be handled: ${text}`, {
    cause: failure,
  });
}
