/** Chooses how a copy drives its two devices, from what they say of themselves and what the caller wants. */
import type { BlockDevice } from '../../block/index.js';
import { reconnects } from '../ends/index.js';
import { DIGEST_BLOCK, type Ends, type Transfer } from '../move/index.js';
import {
  type CopyOptions,
  type DetectZeroes,
  isHashed,
  rulesOf,
  type TransferOptions,
} from '../options/index.js';

const KiB = 1024;
const MiB = 1024 * KiB;

const REQUEST_SIZES = { least: 4 * KiB, most: 32 * MiB, default: 512 * KiB, onTrial: 2 * MiB };
export const REQUESTS = { least: 1, most: 1024, default: 8, onTrial: 64 };
/** Bytes of all requests of all threads together. */
export const MOST_IN_FLIGHT = 1024 * MiB;
/** The same where nobody has said how many, or how large: they grow as long as that helps. */
const MOST_ON_TRIAL = 128 * MiB;

/** The most worker threads that a caller may ask for. */
export const THREADS = { least: 0, most: 256 };
const WINDOWS = { least: 4 * MiB, most: 128 * MiB, perThread: 16 };

const DETECT_ZEROES: readonly DetectZeroes[] = ['off', 'on', 'unmap'];

/** Refuses options that make no sense, before anything is opened. */
export function checkTransfer({
  threads,
  requests,
  requestSize,
  detectZeroes,
  digest,
  onBlock,
}: TransferOptions & Pick<CopyOptions, 'detectZeroes' | 'digest' | 'onBlock'>): void {
  if (detectZeroes !== undefined && !DETECT_ZEROES.includes(detectZeroes)) {
    throw new TypeError(
      `detectZeroes must be one of ${DETECT_ZEROES.join(', ')}, not ${detectZeroes}`,
    );
  }
  checkRange('threads', threads, THREADS);
  checkRange('requests', requests, REQUESTS);
  checkRange('requestSize', requestSize, REQUEST_SIZES);
  if (requestSize !== undefined && !Number.isInteger(Math.log2(requestSize))) {
    throw new RangeError(`requestSize must be a power of two, not ${requestSize}`);
  }
  if (isHashed({ digest, onBlock }) && requestSize !== undefined && requestSize < DIGEST_BLOCK) {
    throw new RangeError(
      `for a digest requestSize must be ${DIGEST_BLOCK} or more, not ${requestSize}`,
    );
  }
  const slots =
    Math.max(1, threads ?? 1) *
    (requests ?? REQUESTS.default) *
    (requestSize ?? REQUEST_SIZES.default);
  if (slots > MOST_IN_FLIGHT) {
    throw new RangeError(
      `${slots} bytes would be in flight, which is more than ${MOST_IN_FLIGHT}: take fewer threads or requests, or a smaller requestSize`,
    );
  }
}

function checkRange(
  name: string,
  value: number | undefined,
  { least, most }: { least: number; most: number },
): void {
  if (value === undefined) return;
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`${name} must be a whole number from ${least} to ${most}, not ${value}`);
  }
}

/** What of the options of a copy has a say in how it moves. */
type ChosenBy = TransferOptions &
  Pick<
    CopyOptions,
    | 'detectZeroes'
    | 'digest'
    | 'flush'
    | 'onBlock'
    | 'onReadError'
    | 'onWriteError'
    | 'retry'
    | 'sequential'
    | 'unmap'
  >;

/** What each of `threads` threads does; `bytes` is what they have to move together. */
export function chooseTransfer(
  options: ChosenBy,
  { source, target }: Ends,
  targetIsZero: boolean,
  { threads, bytes }: { threads: number; bytes: number },
): Transfer {
  const least = isHashed(options) ? DIGEST_BLOCK : REQUEST_SIZES.least;
  const requests = options.requests ?? REQUESTS.default;
  const affordable = powerBelow(MOST_IN_FLIGHT / (Math.max(1, threads) * requests));
  const suitable = Math.min(affordable, defaultRequestSize(source, target, least));
  const wanted = options.requestSize ?? suitable;
  // Granules are no smaller than what either side takes, and each is moved as a whole.
  const requestSize = Math.max(wanted, source.limits.minimum, target.limits.minimum);
  // With a digest whole blocks are read, and in order all that must be zero, so that there are zeroes in the data.
  const hasZeroes = isHashed(options) || options.sequential;
  const isExact = source.capabilities.exactStatus && !hasZeroes;
  const share = Math.ceil(bytes / (Math.max(1, threads) * WINDOWS.perThread));
  const largest = options.requestSize ? requestSize : largestRequest(source, target, requestSize);
  return {
    pace: {
      requests,
      mostRequests: options.requests ?? Math.max(requests, REQUESTS.onTrial),
      requestSize,
      largestRequest: largest,
      mostBytes: Math.max(requests * requestSize, MOST_ON_TRIAL / Math.max(1, threads)),
    },
    policy: {
      detectZeroes:
        options.detectZeroes ?? (isExact ? 'off' : options.unmap === false ? 'on' : 'unmap'),
      targetIsZero,
      unmap: options.unmap ?? true,
      rules: rulesOf(options),
    },
    windowSize: Math.max(requestSize, Math.min(WINDOWS.most, Math.max(WINDOWS.least, share))),
    sequential: options.sequential ?? false,
    flush: (options.flush ?? true) || reconnects(target),
  };
}

/** Bytes of one request that a slow device may need. */
function largestRequest(source: BlockDevice, target: BlockDevice, requestSize: number): number {
  const maximum = Math.min(source.limits.maximum, target.limits.maximum);
  return Math.max(requestSize, Math.min(REQUEST_SIZES.onTrial, powerBelow(maximum)));
}

/** Bytes of one request that suit both sides. */
export function defaultRequestSize(
  source: BlockDevice,
  target: BlockDevice,
  least = REQUEST_SIZES.least,
): number {
  const preferred = Math.max(source.limits.preferred, target.limits.preferred);
  const maximum = Math.min(source.limits.maximum, target.limits.maximum);
  const wanted = Math.max(REQUEST_SIZES.default, preferred);
  return Math.max(least, Math.min(REQUEST_SIZES.most, wanted, powerBelow(maximum)));
}

/** The largest power of two that is no more than a number. */
export function powerBelow(value: number): number {
  return 2 ** Math.floor(Math.log2(value));
}
