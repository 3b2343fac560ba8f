import { LONGEST_TIMER_MS, optionCheck } from '../../../util/index.js';
import { DEFAULT_MAX_PAYLOAD, MAX_EXTENTS } from '../../wire/index.js';

const MiB = 1024 * 1024;

/** What a peer can make one connection hold. Beyond it the server stops reading, so that the peer waits. */
export interface NbdServerLimits {
  /** Requests in flight. Default 128. */
  readonly maxRequests: number;
  /** Bytes of their payloads and answers. One request alone may have more. Default 16 MiB. */
  readonly maxBytes: number;
  /** The longest read or write, advertised as the maximum block size. Default 32 MiB, which all clients expect. */
  readonly maxPayload: number;
  /** Extents of one context in one answer. Default 2^17, as in QEMU; at most 2^20. */
  readonly maxExtents: number;
}

const checkServerLimits = optionCheck<Partial<NbdServerLimits>>({
  maxRequests: 'any',
  maxBytes: 'any',
  maxPayload: 'any',
  maxExtents: 'any',
});

const DEFAULTS: NbdServerLimits = {
  maxRequests: 128,
  maxBytes: 16 * MiB,
  maxPayload: DEFAULT_MAX_PAYLOAD,
  maxExtents: 2 ** 17,
};

/** @throws RangeError when a limit is none. */
export function resolveLimits(given: Partial<NbdServerLimits> = {}): NbdServerLimits {
  checkServerLimits('NbdServer: limits', given);
  const limits = { ...DEFAULTS, ...given };
  const check = (key: keyof NbdServerLimits, least: number, most: number) =>
    checkCount(`limits.${key}`, limits[key], least, most);
  check('maxRequests', 1, 2 ** 16);
  check('maxBytes', 1, 2 ** 32);
  check('maxPayload', MiB, 64 * MiB);
  check('maxExtents', 1, MAX_EXTENTS);
  return limits;
}

/** @throws RangeError when a count is none, or outside its range. */
export function checkCount(name: string, value: number, least: number, most: number): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw new RangeError(`${name} must be a whole number from ${least} to ${most}, not ${value}`);
}

/** @throws RangeError when nobody can wait for so long. */
export function checkWait(name: string, milliseconds: number): number {
  if (milliseconds >= 0 && milliseconds <= LONGEST_TIMER_MS) return milliseconds;
  throw new RangeError(
    `${name} must be from 0 to ${LONGEST_TIMER_MS} milliseconds, not ${milliseconds}`,
  );
}

/** Options that one client may ask beside those of {@link OPTIONS_PER_EXPORT}. */
export const MAX_OPTIONS = 1024;
/** Programs that list exports ask about each of them in turn, with up to three options. */
export const OPTIONS_PER_EXPORT = 4;
/** The longest option that is understood: an export's name and some hundred context queries. */
export const MAX_OPTION_BYTES = 256 * 1024;
/** Longer ones are read and refused, up to this; beyond it nobody is talking NBD. */
export const MAX_DRAINED_BYTES = 32 * MiB;
/** A handshake whose answers are not read waits when so much has piled up. */
export const MAX_UNSENT_ANSWERS = 256 * 1024;
