import type { Bitmap, DirtyBitmaps } from '../../bitmap/index.js';
import type { LacunaError } from '../../errors/index.js';
import type { ExtentList, Range } from '../../extent/index.js';
import type { DeviceDescription } from './description.js';

/**
 * What a driver implements. Drivers stay tiny: the checked wrapper (`device.ts`) stands between them and
 * every caller, so a driver may rely on this:
 *
 * - offsets and lengths are whole numbers inside the device, lengths are above 0, and both are multiples
 *   of `limits.minimum` (the end of a device whose size is not such a multiple excepted);
 * - reads and writes are at most `limits.maximum` bytes long, zero requests `limits.maximumZero`;
 * - no method is called that `capabilities` denies, nor any after `close`.
 *
 * A driver fails with a LacunaError that names the device, the range, and the system's errno.
 */
export interface Driver {
  /** How a person would name it: a path or a URI. */
  readonly name: string;
  /**
   * Opens the same device again, in this thread or another, for as long as this opening lasts, whose locks stand
   * for both; absent where that is impossible.
   */
  readonly description?: DeviceDescription;
  /** The file of this machine that holds its bytes as they are, if one does. */
  readonly path?: string;
  /** Bytes. */
  readonly size: number;
  /** First byte behind what is there, for a file that grows up to its `size`; behind it all reads as zero. */
  readonly end?: number;
  /** Writes behind its end make it longer. Default false. */
  readonly grows?: boolean;
  /** What its requests must and should keep to. */
  readonly limits: Limits;
  /** What it can do. It does not change while the device is open. */
  readonly capabilities: Capabilities;
  /** What an image file says of itself; absent where there is none. */
  readonly details?: ImageDetails;
  /** What a person should know of what is read here, although it can be opened. Default: nothing. */
  readonly warnings?: readonly string[];
  /** Ranges that are lost and read as zero, because that was asked for; in order. Default: none. */
  readonly missing?: readonly Range[];

  /** Fills the whole of `target` with the bytes at `offset`. */
  read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** Stores the whole of `source` at `offset`. */
  write?(offset: number, source: Uint8Array, options: WriteOptions): Promise<void>;
  /**
   * Makes a range read as zero. May fail with ERR_DEVICE_UNSUPPORTED, having changed nothing, where it finds
   * out late that it cannot; unless `fast` was asked, zeroes are written instead.
   */
  zero?(offset: number, length: number, options: ZeroOptions): Promise<void>;
  /** Says that a range is not needed any more; what it reads as afterwards is undefined. */
  discard?(offset: number, length: number, signal?: AbortSignal): Promise<void>;
  /**
   * @internal Stores the whole of `source` at `offset`, and makes it durable before it returns: for marks that must be
   * there before their caller goes on. Absent where that takes waiting.
   */
  writeNow?(offset: number, source: Uint8Array): void;
  /** Makes every write that has completed durable. */
  flush?(signal?: AbortSignal): Promise<void>;
  /**
   * The status of a range, one list for each context asked, in that order. Each list begins at `offset`
   * and says something of at least one byte; it may end before or behind the range.
   */
  extents?(
    offset: number,
    length: number,
    contexts: readonly string[],
    signal?: AbortSignal,
  ): Promise<ExtentList[]>;
  /** Why a context that `capabilities` do not list cannot be had, where there is more to say than that it is not there. */
  whyNoContext?(context: string): LacunaError | undefined;
  /**
   * Where the bytes at `offset` are kept as they are, and how many of them lie there one behind the other: at least
   * one, and not more than `length`. Absent where they are kept here.
   */
  locate?(offset: number, length: number): Promise<Location>;
  /**
   * Copies a range from another driver without the bytes passing through this process; returns false,
   * having changed nothing, where the two cannot.
   */
  copyFrom?(source: Driver, range: CopyRange): Promise<boolean>;
  /** @internal The named bitmaps that it keeps, where its opener records into them; see {@link Opening.live}. */
  readonly keeps?: KeptBitmaps;
  /** @internal The disk as it was at a moment, which a filter keeps beside the one that it shows. */
  readonly snapshot?: SnapshotSource;
  /** @internal A copy of the disk, which a filter keeps up to date while the disk is written. */
  readonly diskCopy?: DiskCopy;
  /**
   * @internal Called while no request is in flight: somebody uses it from now on. May be called again. Returns what takes it back.
   */
  firstUsed?(): () => void;
  /** @internal While on, requests do not wait for a rate; those that wait when it is turned on go on at once. Counts its calls. */
  hurry?(on: boolean): void;
  /** @internal Resolves when nothing goes on any more that no request waits for. */
  settled?(): Promise<void>;
  /** @internal Called while no request is in flight: a device below it, at any depth, was replaced. */
  changedBelow?(): void;
  /** @internal Called while no request is in flight: what shone through from below is gone, and reads as zero. */
  endBacking?(): void;
  /** @internal Makes the image name another backing file, or none, durably, and behind all that was written before. */
  nameBacking?(backing: BackingName | null): Promise<void>;
  /** @internal Throws where {@link nameBacking} would, for want of room say: before work is done for it. */
  checkBackingName?(backing: BackingName | null): void;
  /** @internal Opens what is open for reading for writing too, or ends that. */
  setWritable?(writable: boolean): Promise<void>;
  /** @internal How it keeps other programs from its file, where that may change while it is open. */
  readonly lock?: ChangeableLock | undefined;
  /** @internal Makes the disk larger; what is added reads as zero. An image has the size that it had until it is opened anew. */
  grow?(size: number): Promise<void>;
  /** @internal What a filter can bring up from below into the layer that it lies above. */
  readonly pull?: PullSource;
  /** @internal Called while no request is in flight: what it shows is another disk from now on. */
  contentChanged?(): void;
  /**
   * @internal The caller knows which of its writes may have been forgotten, and makes them again. So a flush no longer fails because
   * of them.
   */
  writesAgain?(): void;
  /**
   * @internal Why something that was written may not be there any more: a connection was lost before it was durable. Every flush fails
   * then, until {@link writesAgain}.
   */
  readonly forgotten?: LacunaError | undefined;
  /** Gives back what the opening holds. Called once, when no request is in flight. */
  close(): Promise<void>;
}

/**
 * @internal As what a file is locked: `write`, nobody else uses it; `read`, nobody else writes it; `none`, others do with it what they
 * like.
 */
export type LockAccess = 'write' | 'read' | 'none';

/** @internal The lock of a file that is open. */
export interface ChangeableLock {
  /** As what it is locked now. */
  readonly access: LockAccess;
  /**
   * @throws LacunaError ERR_DEVICE_LOCKED where others use the file in a way that does not go with it; ERR_DEVICE_OPEN where others
   * have replaced it, or changed its size, while it was not locked. It is as it was then.
   */
  change(access: LockAccess): Promise<void>;
}

/** A backing file: its name as it shall stand in the image, and its format. */
export interface BackingName {
  /** Relative to the image's folder, or absolute. */
  readonly filename: string;
  /** Such as `raw` or `qcow2`; readers must not guess it. */
  readonly format: string;
}

/** @internal What shines through from layers below into the top layer. */
export interface PullSource {
  /**
   * Copies what of a range is not in the top layer into it. Rejects with an error that says which side failed.
   */
  take(offset: number, length: number): Promise<TakenBytes>;
}

/** @internal The disk as it was at a moment. */
export interface SnapshotSource {
  /** Bytes. */
  readonly size: number;
  /** Whether the moment has come: from then on nobody may write the disk beside the filter. */
  readonly hasBegun: boolean;
  /** Why it cannot be read any more; undefined as long as it can. */
  readonly broken: LacunaError | undefined;
  /** What can be given back is a multiple of this. */
  readonly granularity: number;
  /** The bytes of that moment. Fails for what was given back, and where the snapshot is broken. */
  read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** The metadata contexts that the disk had at that moment. */
  readonly contexts: readonly string[];
  /** The status of that moment, of the range or of its beginning, one list for each context asked. */
  extents(
    offset: number,
    length: number,
    contexts: readonly string[],
    signal?: AbortSignal,
  ): Promise<ExtentList[]>;
  /**
   * Copies what of a range is on the disk alone; with `isZero`, that is known to read as zero. Rejects with an error that says
   * which side failed.
   */
  take(offset: number, length: number, isZero: boolean): Promise<TakenBytes>;
  /** A copy of what is on the disk alone, which the caller frees. */
  remaining(): Bitmap;
  /** Gives up what of a range is on the disk alone: nobody wants it. */
  giveUp(offset: number, length: number): Promise<void>;
  /** Gives up what a range was: it can not be read any more, and costs its writers nothing. */
  giveBack(offset: number, length: number): Promise<void>;
}

/** @internal What was done for a range. */
export interface TakenBytes {
  readonly movedBytes: number;
  readonly zeroedBytes: number;
}

/**
 * @internal How a write gets to the copy of a disk: `background`, a job copies it later; `write-blocking`, it is made on both, and the
 * writer waits for both.
 */
export type CopyMode = 'background' | 'write-blocking';

/**
 * @internal Keeps the copy of a disk, the target, up to date while the disk is written. Ranges where the two may differ are dirty, or
 * were taken by the last `takeDirty`. The caller of that copies what it got, and marks as dirty again what it could not copy.
 */
export interface DiskCopy {
  /** Writers go through the filter: from then on nobody may write the disk beside it. */
  readonly hasBegun: boolean;
  /** Whether bitmaps of the target note what is written there. Changed while nothing is in flight. */
  isRecorded: boolean;
  /** Why it is not known any more what differs; undefined as long as it is. */
  readonly broken: LacunaError | undefined;
  /** Bytes of a bit: what is written in part is dirty as a whole. */
  readonly granularity: number;
  /** Bytes that are dirty. */
  readonly dirtyBytes: number;
  /** How writes get to the copy that begin from now on. */
  mode: CopyMode;
  /** While this says true, no write goes to the target. */
  isStopped: () => boolean;
  /** Told when something becomes dirty, and when the target fails a write. */
  onNews: () => void;
  /** Why a write was not made on the target, since this was asked the last time. Writes are not made there until `recover`. */
  takeFailure(): Error | undefined;
  /** The target works again. */
  recover(): void;
  /** What is dirty, which is clean from then on. Ends the first round. The caller frees it. */
  takeDirty(): Bitmap;
  /** A copy of what is dirty, which the caller frees. */
  copyDirty(): Bitmap;
  /** This must be copied again. */
  setDirty(offset: number, length: number): void;
  /** All of this must be copied again. */
  addDirty(bits: Bitmap): void;
  /** Copies a range. Rejects with an error that says which side failed. */
  copy(offset: number, length: number): Promise<TakenBytes>;
  /**
   * Zeroes a range that was found to read as zero, but for what was written since: that is told, and must be copied.
   */
  zero(offset: number, length: number): Promise<ZeroedRange>;
  /** Copies what of a range can be read, and zeroes the rest in the target; that is told, and stays dirty. */
  copyReadable(offset: number, length: number): Promise<ReadableRange>;
  /** Makes the copy durable. What is not known to be durable becomes dirty where this fails. */
  flush(): Promise<void>;
}

/** @internal What was zeroed, and what is left to be copied. */
export interface ZeroedRange extends TakenBytes {
  readonly left: readonly Range[];
}

/** @internal What was copied, and what could not be read. */
export interface ReadableRange extends TakenBytes {
  readonly unread: readonly Range[];
}

/** @internal Named bitmaps and the place where they are stored. */
export interface KeptBitmaps {
  readonly bitmaps: DirtyBitmaps;
  /** Whether persistent bitmaps can be added. */
  readonly canAdd: boolean;
  /** Whether `mark` must be awaited before a change is recorded. */
  readonly mustMark: boolean;
  /** Marks durably what records and is not marked yet; with names, those too. */
  mark(...names: readonly string[]): Promise<void>;
  /** Stores the persistent bitmaps as they are now; what records stays marked. */
  store(): Promise<void>;
}

/** A place where bytes are kept as they are. */
export interface Location {
  /** Who keeps them; absent where nobody does: they are compressed, or zero, and must be read. */
  readonly driver?: Driver;
  /** First byte, as the driver counts. */
  readonly offset: number;
  /** Bytes that lie there one behind the other; above 0. */
  readonly length: number;
}

/** What an image file says of itself: plain JSON. */
export interface ImageDetails {
  /** `qcow2`. */
  readonly format: string;
  /** Of the format. */
  readonly version: number;
  /** Bytes. */
  readonly clusterSize: number;
  /** Bits of a refcount. */
  readonly refcountBits: number;
  /** How its compressed clusters are compressed: `deflate` or `zstd`. */
  readonly compression: string;
  /** The features that are on, by name. */
  readonly features: readonly string[];
  /** The name of the backing file, as it stands in the image. */
  readonly backingFile?: string;
  /** The format of the backing file, as the image says it. */
  readonly backingFormat?: string;
  /** The name of the external data file, as it stands in the image. */
  readonly dataFile?: string;
  /** The files that are really read: the backing file, its backing file, and so on. */
  readonly chain: ReadonlyArray<{
    readonly name: string;
    readonly driver: string;
    readonly size: number;
  }>;
  /** The internal snapshots, as the image lists them. */
  readonly snapshots: readonly SnapshotDetails[];
}

/** An internal snapshot of an image. */
export interface SnapshotDetails {
  /** What tells it from others; a number, as a rule. */
  readonly id: string;
  /** What its maker called it. */
  readonly name: string;
  /** Bytes of the disk. */
  readonly size: number;
  /** ISO 8601. */
  readonly date: string;
  /** Bytes of the state of the machine. */
  readonly stateSize: number;
}

/** A range of one device and its place in another. Bytes. */
export interface CopyRange {
  /** First byte in the source. */
  readonly sourceOffset: number;
  /** First byte in the target. */
  readonly targetOffset: number;
  /** Bytes. */
  readonly length: number;
}

/** How bytes are stored. */
export interface WriteOptions {
  /** Force unit access: the bytes are durable when the call returns. */
  readonly fua?: boolean;
  /** @internal Bitmaps do not note it: the disk shows the same afterwards, or the caller notes the write itself. */
  readonly unrecorded?: boolean;
  /** Fires to end the request before its next piece begins. */
  readonly signal?: AbortSignal;
}

/** How a range is made to read as zero. */
export interface ZeroOptions {
  /** The range may become a hole. Default true. */
  readonly unmap?: boolean;
  /**
   * Fail quickly with ERR_DEVICE_UNSUPPORTED rather than write zeroes one by one. A driver that refuses has
   * changed nothing; a device may have zeroed a part of a range longer than `limits.maximumZero`. Default
   * false.
   */
  readonly fast?: boolean;
  /** Force unit access: the zeroes are durable when the call returns. */
  readonly fua?: boolean;
  /** @internal See {@link WriteOptions.unrecorded}. */
  readonly unrecorded?: boolean;
  /** Fires to end the request before its next piece begins. */
  readonly signal?: AbortSignal;
}

/** Sizes in bytes that requests must or should keep to. All but the maxima are powers of two. */
export interface Limits {
  /** Offsets and lengths of every request are multiples of this. */
  readonly minimum: number;
  /** A status request may begin at multiples of this, where that is less than `minimum`; a power of two. */
  readonly statusMinimum?: number;
  /** Requests of this size and alignment, or multiples of it, are fast. */
  readonly preferred: number;
  /** The longest read or write. */
  readonly maximum: number;
  /** The longest zero or discard request. */
  readonly maximumZero: number;
  /** Zero requests that are not multiples of this may be slow. */
  readonly zeroAlignment: number;
  /** Discards that are not multiples of this are ignored in part. */
  readonly discardAlignment: number;
}

/**
 * What a driver can do; what it leaves out, it cannot. Of a device all is said, and `zero`, `discard` and `flush` never
 * stand without `write`.
 */
export interface Capabilities {
  /** It is not read-only. */
  readonly write?: boolean;
  /** Makes ranges read as zero without being sent the zeroes. */
  readonly zero?: boolean;
  /** Knows how to refuse a zero request that would be slow (ZeroOptions.fast). */
  readonly fastZero?: boolean;
  /** Can be told what is not needed any more. */
  readonly discard?: boolean;
  /** Can make what was written durable; without it, what has completed counts as durable. */
  readonly flush?: boolean;
  /** The metadata contexts that `extents` answers; none where nothing is known. */
  readonly contexts?: readonly string[];
  /**
   * A status query is worked out for all contexts whichever are asked, so that asking for one costs as much
   * as asking for all.
   */
  readonly contextsTogether?: boolean;
  /** Whether the allocation status is exact, so that looking for zeroes inside data finds next to none. */
  readonly exactStatus?: boolean;
  /** Opened several times, all see the same bytes: what one has flushed, every other one reads. */
  readonly multiConnection?: boolean;
  /** It is known that every byte reads as zero (it was just created, or is a null device). */
  readonly knownZero?: boolean;
}
