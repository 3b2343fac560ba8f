import type { ErrorCode } from './codes.js';

/** What an operating error tells beside its message. Every field is optional. */
export interface ErrorContext {
  /** What the request was sent to, as a person would name it: a path or a URI. */
  device?: string;
  /** First byte of the range that failed. */
  offset?: number;
  /** Bytes in the range that failed. */
  length?: number;
  /** The system's or the wire's name of the error, such as `ENOSPC`. */
  errno?: string;
  /** What the peer said of it, word for word, where it said something. */
  description?: string;
  /** Whether the same request may succeed when it is made again. */
  retryable?: boolean;
  /** The error underneath. */
  cause?: unknown;
}

/**
 * What the world does: a disk that is full, a peer that vanished, an image that is damaged. Misuse of
 * the API is a TypeError or a RangeError instead, and a broken invariant an assertion.
 */
export class LacunaError extends Error {
  /** Stable; see {@link ErrorCode}. */
  readonly code: ErrorCode;
  /** Whether the same call may succeed when it is made again. */
  readonly retryable: boolean;
  /** What failed, as a person would name it: a path or a URI. */
  // Declared, not defined: fields that are not known would be printed with every error, as undefined.
  declare readonly device?: string;
  /** First byte of the range that failed. */
  declare readonly offset?: number;
  /** Bytes in the range that failed. */
  declare readonly length?: number;
  /** The system's or the wire's name of the error, such as `ENOSPC`. */
  declare readonly errno?: string;
  /** What the peer said of it, word for word. */
  declare readonly description?: string;

  constructor(code: ErrorCode, message: string, context: ErrorContext = {}) {
    super(message, context.cause === undefined ? undefined : { cause: context.cause });
    this.name = code === 'ERR_ABORTED' ? 'AbortError' : 'LacunaError';
    this.code = code;
    this.retryable = context.retryable ?? false;
    if (context.device !== undefined) this.device = context.device;
    if (context.offset !== undefined) this.offset = context.offset;
    if (context.length !== undefined) this.length = context.length;
    if (context.errno !== undefined) this.errno = context.errno;
    if (context.description !== undefined) this.description = context.description;
  }
}

/** The error that ends work whose AbortSignal fired; the signal's reason becomes the cause. */
export function abortedError(signal?: AbortSignal): LacunaError {
  return new LacunaError('ERR_ABORTED', 'Aborted: the caller cancelled this work', {
    cause: signal?.reason,
  });
}

/** Whether an error says that the work was cancelled, by us or by Node. */
export function isAborted(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}

/** Throws {@link abortedError} if the signal has fired. */
export function throwIfAborted(signal?: AbortSignal): void {
  if (signal?.aborted) throw abortedError(signal);
}
