import { type DeviceDescription, isBlockDevice } from '../../block/index.js';
import { checkRate, JOB_OPTIONS, type JobOptions, type JobProgress } from '../../job/index.js';
import type { NbdServerAddress } from '../../nbd/index.js';
import { optionCheck } from '../../util/index.js';
import type { DiskChoice } from '../inspect/index.js';

/** What is mirrored, where to, and what the replica lacks at the beginning. */
export interface MirrorOptions extends JobOptions {
  /** The disk. Default: the only one that the machine writes. */
  readonly disk?: DiskChoice | undefined;
  /** The replica: a path, an NBD URI or a description. It is there, and of the disk's size. */
  readonly target: string | DeviceDescription;
  /**
   * The first time: the bitmap of the disk that marks all in which the two differ, as the target holds what the disk held when
   * that bitmap began. Later the state of the replica names the bitmap.
   */
  readonly bitmap?: string | undefined;
  /** Copy all of the disk, whatever the target holds. Default false. */
  readonly full?: boolean | undefined;
  /** The file that keeps the state of the replica. Default: that of the target, with `.replica` behind its name. */
  readonly state?: string | undefined;
  /** End as soon as the replica has everything. Default false: go on until `stop()`. */
  readonly once?: boolean | undefined;
  /** Milliseconds between two moments at which what was written is made durable: 10 to 3,600,000. Default 5000. */
  readonly flushMs?: number | undefined;
  /** Where this process serves the target to QEMU. Default: a socket in the folder. */
  readonly serve?: NbdServerAddress | undefined;
}

/** A moment of a mirror. Its bytes are those that had changed before it began; what the guest writes counts apart. */
export interface MirrorProgress extends JobProgress {
  /** `copy`: what had changed before is copied. `in step`: the replica has all but the last writes. */
  phase: 'begin' | 'copy' | 'in step';
  /** Bytes that QEMU has handed on of what the guest writes. */
  mirroredBytes: number;
  /** Writes of QEMU that are durable in the replica; it has made `mirroredWrites`. */
  durableWrites: number;
  /** Writes of QEMU that the replica holds, durable or not. */
  mirroredWrites: number;
}

/** What a mirror came to that ended as it should: the replica equals the disk as it was at one moment. */
export interface MirrorReport {
  /** The disk. */
  readonly disk: string;
  /** Between this moment (ISO 8601) */
  readonly equalAfter: string;
  /** and this one, the disk was what the replica is. */
  readonly equalBefore: string;
  /** The bitmap that marks what changes from then on: the next mirror begins from it, by itself. Do not remove it. */
  readonly bitmap: string;
  /** Whether the bitmap outlives QEMU. Where not, the next mirror after a restart must copy all (`full`). */
  readonly persistent: boolean;
  /** Bytes that were copied as data, of what had changed before. */
  readonly copiedBytes: number;
  /** Bytes that QEMU has handed on. */
  readonly mirroredBytes: number;
  /** The file that says so. */
  readonly state: string;
  /** What a person should know. */
  readonly warnings: readonly string[];
}

const OWNER = 'Machine.mirror';
const SHORTEST_FLUSH_MS = 10;
const LONGEST_FLUSH_MS = 3_600_000;

const check = optionCheck<MirrorOptions>({
  ...JOB_OPTIONS,
  disk: 'any',
  target: { needed: 'the replica: a path, an NBD URI or a description' },
  bitmap: 'any',
  full: 'flag',
  state: 'any',
  once: 'flag',
  flushMs: 'any',
  serve: 'any',
});

/** @throws TypeError, RangeError */
export function checkMirrorOptions(options: MirrorOptions): void {
  check(OWNER, options);
  const { bitmap, full, flushMs = LONGEST_FLUSH_MS, rate, state, target } = options;
  checkRate(rate);
  if (isBlockDevice(target)) {
    throw new TypeError(`${OWNER}: target must be a path, a URI or a description, no open device`);
  }
  if (bitmap !== undefined && full) {
    throw new TypeError(`${OWNER}: full copies all, so leave out the bitmap, or leave out full`);
  }
  if (bitmap === '' || (bitmap !== undefined && typeof bitmap !== 'string')) {
    throw new TypeError(`${OWNER}: bitmap must be the name of a bitmap of the disk`);
  }
  if (state === '') throw new TypeError(`${OWNER}: state must name a file`);
  const isFit =
    Number.isInteger(flushMs) && flushMs >= SHORTEST_FLUSH_MS && flushMs <= LONGEST_FLUSH_MS;
  if (isFit) return;
  throw new RangeError(
    `${OWNER}: flushMs must be a whole number from ${SHORTEST_FLUSH_MS} to ${LONGEST_FLUSH_MS}, not ${flushMs}`,
  );
}
