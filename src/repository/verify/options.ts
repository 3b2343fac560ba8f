import type { Range } from '../../block/index.js';
import type { JobOptions } from '../../job/index.js';
import { optionCheck } from '../../util/index.js';

/** What is verified, and how much of it. */
export interface VerifyOptions extends JobOptions {
  /** Only this machine. Default: all. */
  readonly machine?: string | undefined;
  /** Only these points, by number; `machine` says of which machine. Default: all. */
  readonly points?: readonly number[] | undefined;
  /**
   * The share of all bytes that is read: above 0, 1 at most. Each call takes other places. Manifests and digests are read in any
   * case. Default 1.
   */
  readonly dataSubset?: number | undefined;
  /** Worker threads. Default: as `copy` chooses them. */
  readonly threads?: number;
}

/** Something that is not what it was. */
export interface Problem extends Partial<Range> {
  /** Absent where it is about the whole repository. */
  readonly machine?: string;
  /** The point that the file belongs to; absent if it belongs to no point. */
  readonly point?: number;
  /** The disk that it is about; absent where it is about all of them. */
  readonly disk?: string;
  /** The file that it was found in. */
  readonly file?: string;
  /** For people: what, where, and whose. */
  readonly message: string;
}

/** What is known of a point. */
export interface VerifiedPoint {
  /** The machine that the point is of. */
  readonly machine: string;
  /** Its number. */
  readonly number: number;
  /** Whether it is sound, with all that lies below it, as far as was read. */
  readonly ok: boolean;
  /** Points in its chain that are not sound: it may not be restorable. */
  readonly damagedBy: readonly number[];
}

/** Result of a verification. */
export interface VerifyReport {
  /** Whether nothing was found. */
  readonly ok: boolean;
  /** Every point that was looked at. */
  readonly points: readonly VerifiedPoint[];
  /** Everything that was found. */
  readonly problems: readonly Problem[];
  /** Bytes of images and disks that were read and compared. */
  readonly readBytes: number;
  /** Files that belong to no point; the next backup or prune removes them. */
  readonly unnamed: readonly string[];
  /** Milliseconds from the call to the report. */
  readonly durationMs: number;
  /** What a person should know beside that. */
  readonly warnings: readonly string[];
}

const check = optionCheck<VerifyOptions>({
  machine: 'any',
  points: 'any',
  dataSubset: 'any',
  threads: 'any',
  rate: 'any',
  signal: 'signal',
});

/** @throws TypeError or RangeError */
export function checkVerifyOptions(options: VerifyOptions): void {
  check('verify', options);
  const { dataSubset = 1, points, machine } = options;
  if (!(typeof dataSubset === 'number' && dataSubset > 0 && dataSubset <= 1)) {
    throw new RangeError(`verify: dataSubset must be above 0 and 1 at most, not ${dataSubset}`);
  }
  if (points !== undefined && machine === undefined) {
    throw new TypeError('verify: points are those of a machine: say which');
  }
}
