import type { Bitmap } from '../bitmap/index.js';
import type { Device, DeviceDescription, ImageFormat, Preallocation } from '../block/index.js';

/** A device to work on: a path, an NBD URI, a description, or one that the caller has opened. */
export type DeviceSource = string | DeviceDescription | Device;

/**
 * Whether zeroes are looked for inside what the source calls data, in steps of 4 KiB: `on` writes them as
 * zero requests, `unmap` lets those requests make holes. Where the target is known to hold zero already,
 * both leave them out.
 */
export type DetectZeroes = 'off' | 'on' | 'unmap';

/** How hard to drive both sides. Every default is chosen from what the two devices say of themselves. */
export interface TransferOptions {
  /** Worker threads; each opens its own connection to both sides. 0 stays on the calling thread. */
  threads?: number;
  /** Requests in flight in each thread. */
  requests?: number;
  /** Bytes of one request; a power of two from 4 KiB to 32 MiB. */
  requestSize?: number;
}

export interface CopyOptions extends TransferOptions {
  source: DeviceSource;
  /** A file that is not there is created; one that is there is replaced, unless the copy is incremental. */
  target: DeviceSource;
  /** The format inside a path; only `raw` can be read and written here. Default: from the path's ending. */
  sourceFormat?: ImageFormat;
  targetFormat?: ImageFormat;
  /**
   * Makes the copy incremental: only what this metadata context of the source marks, such as
   * `qemu:dirty-bitmap:NAME`, is moved. The target must hold the state that the bitmap counts from.
   */
  context?: string;
  /** Makes the copy incremental: only what is dirty in this bitmap is moved. It is not changed. */
  bitmap?: Bitmap;
  /** The caller knows that the target reads as zero everywhere. */
  targetIsZero?: boolean;
  /** Default: `off` where the source's status is exact, else `unmap`. */
  detectZeroes?: DetectZeroes;
  /**
   * Take the digest of the source's content while it is copied; see `digest`. Only for a full copy: an incremental
   * one does not read what is clean. Default false.
   */
  digest?: boolean;
  /** The space that a new file takes before anything is copied to it. Default `off`: a sparse file. */
  preallocation?: Preallocation;
  /** Make the target durable before the copy is called done. Default true. */
  flush?: boolean;
  /**
   * A file that keeps what remains, so that a copy that was stopped by whatever can go on: where it does not exist
   * it is begun, where it does the copy goes on from it, and when the copy is complete it is removed. It is bound to
   * source, target and bitmap. The source must hold the same bytes in every run.
   */
  resume?: string;
  signal?: AbortSignal;
}

export type CopyPhase = 'plan' | 'zero' | 'move' | 'flush' | 'done';

/** A moment of a running copy. Only completed bytes count. */
export interface CopyProgress {
  phase: CopyPhase;
  /** Bytes that must be moved or zeroed; 0 until the plan is made. */
  totalBytes: number;
  /** Bytes of those that are done. */
  doneBytes: number;
  movedBytes: number;
  zeroedBytes: number;
  /** Bytes of `doneBytes` that earlier runs had done; see `resume`. */
  resumedBytes: number;
  elapsedMs: number;
}

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
  /** Bytes that earlier runs had moved or zeroed; the other numbers are this run's. */
  resumedBytes: number;
  /** Read, write and zero requests. */
  requests: number;
  /** Worker threads; 0 when the calling thread did it all. */
  threads: number;
  planMs: number;
  durationMs: number;
  /** Of the source's content, if it was asked for. */
  digest?: string;
  /** What a person should know although the copy succeeded. */
  warnings: string[];
}
