import {
  type BlockDevice,
  checkBacking,
  type DeviceDescription,
  type ImageFormat,
  type Preallocation,
  type Qcow2Options,
  type Range,
} from '../../block/index.js';
import type { JobProgress } from '../../job/index.js';
import { optionCheck } from '../../util/index.js';
import type { PlanScope, PlanTotals } from './scope.js';

/** A device to work on: a path, an NBD URI, a description, or one that the caller has opened. */
export type DeviceSource = string | DeviceDescription | BlockDevice;

/**
 * Whether zeroes are looked for inside what the source calls data, in steps of 4 to 64 KiB, as the target zeroes
 * as a whole: `on` writes them as zero requests, `unmap` lets those requests make holes. Where the target is
 * known to hold zero already, both leave them out.
 */
export type DetectZeroes = 'off' | 'on' | 'unmap';

/** How hard to drive both sides. Every default is chosen from what the two devices say of themselves. */
export interface TransferOptions {
  /**
   * Worker threads; each opens its own connection to both sides. 0 stays on the calling thread, as a short copy does by
   * default.
   */
  threads?: number;
  /** Requests in flight in each thread. By default a copy begins with a few, and takes more where that is faster. */
  requests?: number;
  /**
   * Bytes of one request; a power of two from 4 KiB to 32 MiB. By default a copy begins with what suits both sides, and
   * makes larger ones, up to 2 MiB, where that is faster.
   */
  requestSize?: number;
}

/** Where a request failed: reading the source, or writing, zeroing or flushing the target. */
export type Side = 'source' | 'target';

/**
 * What is done about a request that failed:
 *
 * - `report`: the copy fails. The default.
 * - `retry`: it is made again, in smaller pieces, then as `report`. See {@link RetryOptions}.
 * - `stop`: the copy finishes what is in flight, keeps what remains, and waits in the state `paused`, with the failure as
 *   its `error`. `resume()` tries again, over new connections where they were lost; `stop()` or the signal ends it.
 * - `ignore`: it is made again in ever smaller pieces, down to 4 KiB, and what fails at last is left out and listed
 *   in the report. What cannot be read is zeroed in the target; what cannot be written holds there whatever it
 *   held, or a part of what it should. A device that is gone altogether still ends the copy.
 *
 * A flush that fails is never simply made again, because a second one may succeed although bytes were lost:
 * everything since the last good flush is moved again (`retry`, `stop`), or the copy fails. A connection that is
 * lost while the plan is made fails the copy, unless it comes back in time (`reconnectSeconds`).
 */
export type ErrorPolicy = 'report' | 'retry' | 'stop' | 'ignore';

/** How a failed request is made again, before its side's policy decides; with `ignore` and `stop` only if given. */
export interface RetryOptions {
  /** How often, 0 to 1000. Default 5 with the policy `retry`, else 0. */
  attempts?: number;
  /** Milliseconds before the first attempt; each further one waits twice as long, up to 30 s. Default 100. */
  backoffMs?: number;
  /**
   * How long requests wait for a lost NBD connection to be made again, in seconds; 0 for not at all. Default 30
   * where there are attempts. A device that the caller has opened keeps what it was opened with.
   */
  reconnectSeconds?: number;
}

/** How a new qcow2 image is made; see {@link Qcow2Options}. */
export type NewImageOptions = Omit<
  Qcow2Options,
  | 'size'
  | 'preallocation'
  | 'exclusive'
  | 'inode'
  | 'mode'
  | 'dataFileMade'
  | 'backingIsKnown'
  | 'signal'
>;

/**
 * In the modes `top` and `incremental` the target must hold what the source held when the bitmap began to
 * count, or what the layers below its top one hold; the rest of it is left alone. Bitmaps are not changed.
 */
export interface CopyOptions extends TransferOptions, PlanScope {
  /** What is copied. A device that the caller has opened stays open. */
  source: DeviceSource;
  /** A file that is not there is created; one that is there is replaced, unless parts of it are left alone. */
  target: DeviceSource;
  /** The format inside a path. Default: from the path's ending. */
  sourceFormat?: ImageFormat;
  /** The format inside a path. Default: from the path's ending. */
  targetFormat?: ImageFormat;
  /**
   * How a target is made that is a new qcow2 image. With a backing file, which must hold what the target of such a copy
   * must hold, an image is made in the modes `top` and `incremental` too, and takes in only what these write.
   */
  image?: NewImageOptions;
  /**
   * @internal The caller knows the backing file of `image` and all below it, and that the target is none of them: they are
   * neither looked at nor opened, but for what is not written whole. A long chain takes longer than a short increment.
   * Default false.
   */
  baseIsKnown?: boolean;
  /**
   * Give a target that is a new qcow2 image the bitmaps of the source, which must be one too: those that stand in the
   * image itself, and not in its backing files. Default false. A bitmap that is inconsistent fails the copy before it
   * begins.
   */
  carryBitmaps?: boolean;
  /** Leave out bitmaps that are inconsistent, with a warning. Default false. */
  skipBrokenBitmaps?: boolean;
  /** Compress the clusters of a target that is a qcow2 image. Default false. */
  compress?: boolean;
  /** Read the source although others may be writing it; see OpenOptions. */
  forceShare?: boolean;
  /** Whether what is zeroed because of the source's status may become holes of the target. Default true. */
  unmap?: boolean;
  /**
   * Let a source of 0 bytes replace a target that holds something, or be an export. Default false: it is refused with
   * ERR_COPY_EMPTY, because a device that is not ready looks so.
   */
  allowEmpty?: boolean;
  /**
   * Write into a target file that is there, instead of replacing it by another one when that is whole: where there is no
   * room for two, or nothing can be made in its folder; or into an image that a device holds, on which a full copy makes a
   * new one otherwise. A raw file gets the size of the source. If such a copy fails the
   * target holds a part of it. Default false.
   */
  inPlace?: boolean;
  /** The caller knows that the target reads as zero everywhere. Not for the modes `top` and `incremental`. */
  targetIsZero?: boolean;
  /** Default: `off` where the source's status is exact, else `unmap` (or `on` where `unmap` is false). */
  detectZeroes?: DetectZeroes;
  /**
   * Take the digest of the source's content while it is copied; see `digest`. Only for a full copy: an incremental
   * one does not read what is clean. Default false.
   */
  digest?: boolean;
  /**
   * Told the SHA-256 of every block of 64 KiB of the source that is moved, as docs/digest.md defines it, in any order; a block
   * that is moved again after a failure comes again. What is left out or zeroed by its status does not come. What it throws
   * ends the copy and fails it, before the target is finished.
   */
  onBlock?(block: number, digest: Uint8Array): void;
  /**
   * Write in the order of offsets, for targets that want it: tapes, rotating disks, whatever only appends. Data is read
   * ahead as usual. One thread does it all, and what has to become zero is zeroed in its turn, in requests as long as
   * those for data. Default false.
   */
  sequential?: boolean;
  /**
   * Read the target back when it is flushed, and compare all that was copied with the source. It is read as every
   * program would read it: through the system's cache, where there is one. Default false.
   */
  verify?: boolean;
  /**
   * The space that a new file takes before anything is copied to it. Default `off`: a sparse file. `metadata` is for
   * images, and maps all of the disk.
   */
  preallocation?: Preallocation;
  /**
   * Make the target durable before the copy is called done. Default true. Without it a target whose connection may be
   * made again is flushed all the same, because nothing else tells that its server has lost nothing.
   */
  flush?: boolean;
  /**
   * Bytes per second that may be read as data, all threads together, and read back with `verify`. Zero requests and what is
   * left out by its status cost nothing. Default: as fast as it goes. `setRate` changes it.
   */
  rate?: number;
  /** Default `report`. */
  onReadError?: ErrorPolicy;
  /** Default `report`. */
  onWriteError?: ErrorPolicy;
  /** How failed requests are made again before the policies decide. */
  retry?: RetryOptions;
  /**
   * A file that keeps what remains, so that a copy that was stopped by whatever can go on: where it does not exist
   * it is begun, where it does the copy goes on from it, and when the copy is complete it is removed. It is bound to
   * source, target and bitmap, with every file below the two. The source must hold the same bytes in every run.
   */
  resume?: string;
  /**
   * Fires to end the copy at once: it rejects with ERR_ABORTED. An unfinished file is left as `NAME.partial-XXXXXX`.
   */
  signal?: AbortSignal;
}

/** What a device can be given as. */
export const A_DEVICE = 'a path, an NBD URI, a description, or an open Device';

/** The same for the options of a verb. */
export const DEVICE = { needed: A_DEVICE } as const;
/** What {@link TransferOptions} has. */
export const TRANSFER = { threads: 'any', requests: 'any', requestSize: 'any' } as const;

const checkRetry = optionCheck<RetryOptions>({
  attempts: 'any',
  backoffMs: 'any',
  reconnectSeconds: 'any',
});

const checkImage = optionCheck<NewImageOptions>({
  clusterSize: 'any',
  version: 'any',
  refcountBits: 'any',
  extendedL2: 'flag',
  compressionType: 'any',
  backing: 'any',
  dataFile: 'any',
  dataFileRaw: 'flag',
  lazyRefcounts: 'flag',
});

const checkAllOfCopy = optionCheck<CopyOptions>({
  ...TRANSFER,
  mode: 'any',
  context: 'any',
  bitmap: 'any',
  source: DEVICE,
  target: DEVICE,
  sourceFormat: 'any',
  targetFormat: 'any',
  image: 'any',
  baseIsKnown: 'flag',
  carryBitmaps: 'flag',
  skipBrokenBitmaps: 'flag',
  compress: 'flag',
  forceShare: 'flag',
  unmap: 'flag',
  targetIsZero: 'flag',
  allowEmpty: 'flag',
  inPlace: 'flag',
  detectZeroes: 'any',
  digest: 'flag',
  onBlock: 'callback',
  sequential: 'flag',
  verify: 'flag',
  preallocation: 'any',
  flush: 'flag',
  rate: 'any',
  onReadError: 'any',
  onWriteError: 'any',
  retry: 'any',
  resume: 'any',
  signal: 'signal',
});

/** Throws where a copy is told what it does not know, or is not told what it needs. */
export function checkCopyOptions(owner: string, options: CopyOptions): void {
  checkAllOfCopy(owner, options);
  const { image, retry } = options;
  if (retry !== undefined) checkRetry(`${owner}: retry`, retry);
  if (image === undefined) return;
  checkImage(`${owner}: image`, image);
  if (image.backing !== undefined) checkBacking(`${owner}: image.backing`, image.backing);
}

/** Whether what is moved is hashed, in whole blocks. */
export function isHashed({ digest, onBlock }: Pick<CopyOptions, 'digest' | 'onBlock'>): boolean {
  return digest === true || onBlock !== undefined;
}

/** A range that was left out because it failed and the policy was to ignore that. */
export interface LeftOutRange {
  /** Which side failed. */
  side: Side;
  /** First byte. */
  offset: number;
  /** Bytes. */
  length: number;
  /** The first failure in it. */
  error: { code: string; message: string; errno?: string };
}

/**
 * What a copy is doing: finding out what must move, zeroing the target as a whole, moving, making it durable, reading
 * it back, or nothing any more.
 */
export type CopyPhase = 'plan' | 'zero' | 'move' | 'flush' | 'verify' | 'done';

/**
 * A moment of a copy. `totalBytes` is what must be moved or zeroed, or what is read back when the phase is `verify`; `error`
 * is what a copy waits for whose policy is `stop`.
 */
export interface CopyProgress extends JobProgress {
  /** What the copy is doing. */
  phase: CopyPhase;
  /** Bytes written as data. */
  movedBytes: number;
  /** Bytes written as zeroes, without moving data. */
  zeroedBytes: number;
  /** Requests that were made again after they had failed. */
  retries: number;
  /** Bytes of `doneBytes` that earlier runs had done; see `resume`. */
  resumedBytes: number;
}

/** The report of a copy. Bytes, requests and retries are those of all threads together. */
export interface CopyReport {
  /** Bytes of the source. */
  size: number;
  /** Bytes that had to be dealt with: the data of a full copy, what is dirty in an incremental one. */
  plannedBytes: number;
  /** Bytes written as data. */
  movedBytes: number;
  /** Bytes written as zeroes, without moving data. */
  zeroedBytes: number;
  /** Bytes never touched, because they are clean or zero on both sides. */
  skippedBytes: number;
  /**
   * Why they were not: `clean` is not dirty, or not of the top layer; `zero` reads as zero on both sides, by status or
   * because zeroes were found in what was read. Absent where the copy went on from an earlier run.
   */
  skipped?: { cleanBytes: number; zeroBytes: number };
  /** Bytes that failed and were left out, see `errors`. */
  leftOutBytes: number;
  /**
   * What the plan knew of the source: how much of it is clean, a hole, zero, or data; `skipped` says what of it was
   * left alone. Absent where the copy went on from an earlier run, which had the plan.
   */
  totals?: PlanTotals;
  /** Bytes that earlier runs had moved or zeroed; the other numbers are this run's. */
  resumedBytes: number;
  /** Read, write and zero requests. */
  requests: number;
  /** Requests that were made again after they had failed. */
  retries: number;
  /** What was left out, in order of side and offset. Nothing unless an error policy is `ignore`. */
  errors: LeftOutRange[];
  /** Ranges that did not fit into `errors`, which ends at 1000. */
  moreErrors: number;
  /**
   * Ranges of the source that its files do not have any more, and that were taken for zeroes because `rescue` of its
   * description says so; the first 1000, in order.
   */
  missing: Range[];
  /** Bytes per second, as they were done, second by second; a long copy has longer steps, and the last one may be shorter. */
  rate: { stepMs: number; bytesPerSecond: number[] };
  /** The most memory that this process ever had resident, in bytes. */
  peakMemoryBytes: number;
  /** Worker threads; 0 when the calling thread did it all. */
  threads: number;
  /** Milliseconds that the plan took; a part of `durationMs`. */
  planMs: number;
  /** Milliseconds from the call to the report. */
  durationMs: number;
  /** Bytes that were read back, if it was asked for; the rest is known to be zero on both sides, or clean. */
  verifiedBytes?: number;
  /** Of the source's content, if it was asked for. */
  digest?: string;
  /** Names of the bitmaps that were carried along, if that was asked for. */
  bitmaps?: string[];
  /** What a person should know although the copy succeeded. */
  warnings: string[];
}
