import type { ErrorCode } from './codes.js';
import { LacunaError } from './lacuna-error.js';

/**
 * An error as a plain object. The structured clone of a worker's error keeps only message, stack and
 * cause: `name`, `code` and all fields are lost. So workers send this form, and the caller revives it.
 */
export interface WireError {
  /** The error's class, such as `LacunaError`, `TypeError` or `AbortError`. */
  name: string;
  /** What happened, for people. */
  message: string;
  /** Where it was thrown. */
  stack?: string;
  /** See {@link ErrorCode}; or that of Node. */
  code?: string;
  /** As in {@link LacunaError}, and so are the next four. */
  retryable?: boolean;
  /** Absent where it is not known. */
  device?: string;
  /** Bytes. */
  offset?: number;
  /** Bytes. */
  length?: number;
  /** Such as `ENOSPC`. */
  errno?: string;
  /** What the peer said, word for word. */
  description?: string;
  /** The error underneath, to a depth of 8. */
  cause?: WireError;
}

/** Causes are followed this deep; a cycle of causes must not hang a worker. */
const MAX_CAUSES = 8;

/** Turns anything thrown into a plain object that survives a thread boundary or JSON. */
export function toWire(error: unknown, depth = 0): WireError {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) };
  const { code, errno } = error as { code?: unknown; errno?: unknown };
  const wire: WireError = { name: error.name, message: error.message };
  if (error.stack !== undefined) wire.stack = error.stack;
  if (typeof code === 'string') wire.code = code;
  if (typeof errno === 'string') wire.errno = errno;
  if (error instanceof LacunaError) {
    wire.retryable = error.retryable;
    if (error.device !== undefined) wire.device = error.device;
    if (error.offset !== undefined) wire.offset = error.offset;
    if (error.length !== undefined) wire.length = error.length;
    if (error.description !== undefined) wire.description = error.description;
  }
  if (error.cause !== undefined && depth < MAX_CAUSES) wire.cause = toWire(error.cause, depth + 1);
  return wire;
}

/** Rebuilds the error of {@link toWire}, with its class where the class is ours or the language's. */
export function fromWire(wire: WireError): Error {
  const error = revive(wire);
  if (wire.stack !== undefined) error.stack = wire.stack;
  return error;
}

function revive(wire: WireError): Error {
  const cause = wire.cause === undefined ? undefined : fromWire(wire.cause);
  if (wire.retryable !== undefined && wire.code !== undefined) {
    return new LacunaError(wire.code as ErrorCode, wire.message, { ...wire, cause });
  }
  const options = cause === undefined ? undefined : { cause };
  if (wire.name === 'TypeError') return new TypeError(wire.message, options);
  if (wire.name === 'RangeError') return new RangeError(wire.message, options);
  const error = new Error(wire.message, options);
  error.name = wire.name;
  return wire.code === undefined ? error : Object.assign(error, { code: wire.code });
}
