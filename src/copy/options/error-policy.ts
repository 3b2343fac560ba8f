/** What is done about a request that failed: which failures may be tried again, waited for, or left out. */
import { isAborted, LacunaError } from '../../errors/index.js';
import type { CopyOptions, ErrorPolicy, Side } from './options.js';

/** The policy of one side, in numbers; plain data, so that it can be posted to a worker. */
export interface ErrorRule {
  policy: ErrorPolicy;
  /** How often a failed request is made again. */
  attempts: number;
  /** Milliseconds before the first of them; every further one waits twice as long. */
  backoffMs: number;
}

export type ErrorRules = Record<Side, ErrorRule>;

/** What a caller says of failures. */
type Policies = Pick<CopyOptions, 'onReadError' | 'onWriteError' | 'retry'>;

const POLICIES: readonly ErrorPolicy[] = ['report', 'retry', 'stop', 'ignore'];
const ATTEMPTS = { default: 5, most: 1000 };
const BACKOFF_MS = { default: 100, most: 3_600_000 };
const LONGEST_BACKOFF_MS = 30_000;

/** How long a lost connection is tried to be made again where the caller asked for retries, and not how long. */
const RECONNECT_SECONDS = 30;

/** There is no room: smaller pieces of the same request will not find any either. */
const FULL = new Set(['ENOSPC', 'EDQUOT']);

/** A failure of one side, on its way to whoever knows the policy of that side. */
export class SideError extends Error {
  readonly side: Side;
  override readonly cause: LacunaError;

  constructor(side: Side, cause: LacunaError) {
    super(cause.message, { cause });
    this.side = side;
    this.cause = cause;
  }
}

/** Says which side a request was made to, should it fail. What is no failure of the world passes as it is. */
export async function onSide<T>(side: Side, request: Promise<T>): Promise<T> {
  try {
    return await request;
  } catch (error) {
    throw withSide(side, error);
  }
}

/** An error that says which side it came from. What is no failure of the world stays as it is. */
export function withSide(side: Side, error: unknown): unknown {
  return error instanceof LacunaError && !isAborted(error) ? new SideError(side, error) : error;
}

/** The error that a person should see. */
export function withoutSide(error: unknown): unknown {
  return error instanceof SideError ? error.cause : error;
}

/** Refuses policies that make no sense. */
export function checkPolicies({
  onReadError,
  onWriteError,
  retry,
  digest,
}: Policies & Pick<CopyOptions, 'digest'>): void {
  for (const policy of [onReadError, onWriteError]) {
    if (policy !== undefined && !POLICIES.includes(policy)) {
      throw new TypeError(`an error policy must be one of ${POLICIES.join(', ')}, not ${policy}`);
    }
  }
  if (digest && (onReadError === 'ignore' || onWriteError === 'ignore')) {
    throw new TypeError('there is no digest of a copy that may leave something out');
  }
  checkNumber('retry.attempts', retry?.attempts, ATTEMPTS.most);
  checkNumber('retry.backoffMs', retry?.backoffMs, BACKOFF_MS.most);
  checkNumber('retry.reconnectSeconds', retry?.reconnectSeconds, BACKOFF_MS.most / 1000);
}

function checkNumber(name: string, value: number | undefined, most: number): void {
  if (value === undefined || (Number.isInteger(value) && value >= 0 && value <= most)) return;
  throw new RangeError(`${name} must be a whole number from 0 to ${most}, not ${value}`);
}

export function rulesOf({ onReadError, onWriteError, retry }: Policies): ErrorRules {
  const rule = (policy: ErrorPolicy = 'report'): ErrorRule => ({
    policy,
    attempts: retry?.attempts ?? (policy === 'retry' ? ATTEMPTS.default : 0),
    backoffMs: retry?.backoffMs ?? BACKOFF_MS.default,
  });
  return { source: rule(onReadError), target: rule(onWriteError) };
}

/** Seconds that a lost connection of this side may take to come back; 0 where nobody asked for it. */
export function reconnectSeconds(
  { attempts }: ErrorRule,
  { retry }: Pick<CopyOptions, 'retry'>,
): number {
  return retry?.reconnectSeconds ?? (attempts > 0 ? RECONNECT_SECONDS : 0);
}

/** Milliseconds to wait before attempt number `attempt`, the first of which is 0. */
export function backoffOf({ backoffMs }: ErrorRule, attempt: number): number {
  return Math.min(LONGEST_BACKOFF_MS, backoffMs * 2 ** Math.min(attempt, 30));
}

/** Whether the same request, or a smaller one in its place, may do better. */
export function mayRepeat(error: LacunaError): boolean {
  return error.code !== 'ERR_NBD_UNFLUSHED' && (error.retryable || isRefusal(error));
}

/** Whether a part of the request may do better than all of it. */
export function maySplit(error: LacunaError): boolean {
  return isRefusal(error) && !FULL.has(error.errno ?? '');
}

/**
 * The device is there and answered this request with an error. Only such a range can be left out: all of a
 * device that is gone cannot.
 */
export function isRefusal({ code, errno }: LacunaError): boolean {
  if (code === 'ERR_NBD_REMOTE') return errno !== 'ESHUTDOWN';
  return code === 'ERR_DEVICE_IO';
}

/** The device must be opened anew before it answers again, and may have forgotten what was not flushed. */
export function isLost({ code, errno }: LacunaError): boolean {
  if (code === 'ERR_NBD_REMOTE') return errno === 'ESHUTDOWN';
  return LOST.has(code);
}

const LOST = new Set<string>([
  'ERR_NBD_DISCONNECTED',
  'ERR_NBD_UNFLUSHED',
  'ERR_NBD_PROTOCOL',
  'ERR_TIMEOUT',
]);
