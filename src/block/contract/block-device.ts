/** What everything above the drivers works on: a device that checks what it is asked, or something that stands for one. */
import type { LacunaError } from '../../errors/index.js';
import type { ExtentList, Range } from '../../extent/index.js';
import type { DeviceDescription } from './description.js';
import type {
  Capabilities,
  CopyRange,
  ImageDetails,
  Limits,
  Location,
  SnapshotSource,
  WriteOptions,
  ZeroOptions,
} from './driver.js';

/** What every request may be told. */
export interface RequestOptions {
  /** Fires to end the request before its next piece begins; it fails with ERR_ABORTED. */
  readonly signal?: AbortSignal;
}

/** Which kinds of status are asked for. */
export interface ExtentsOptions extends RequestOptions {
  /** Metadata contexts; default `base:allocation` alone. */
  readonly contexts?: readonly string[];
}

/**
 * A device as every caller holds it. Requests may have any size and alignment and may run side by side. `Device` is
 * one over a driver; a filter, or an edge of a graph, is another.
 *
 * Every method rejects with a TypeError or RangeError when it is misused, with `ERR_DEVICE_CLOSED` after
 * `close`, with `ERR_DEVICE_UNSUPPORTED` where `capabilities` deny it, and with `ERR_ABORTED` when the signal
 * has fired before a piece of it begins. A range of length 0 is valid and does nothing.
 */
export interface BlockDevice extends AsyncDisposable {
  /** How a person would name it: a path or a URI. */
  readonly name: string;
  /** Opens the same device again, in this thread or another, for as long as this opening lasts; absent where nothing can. */
  readonly description?: DeviceDescription;
  /** The file of this machine that holds its bytes as they are, if one does. */
  readonly path?: string;
  /** Bytes. */
  readonly size: number;
  /** First byte behind what is there: `size`, but less where a file grows up to it. */
  readonly end: number;
  /** What requests should keep to in order to be fast; none of it must be kept to. */
  readonly limits: Limits;
  /** What it can do. `knownZero` ends with the first write or discard made through this opening. */
  readonly capabilities: Required<Capabilities>;
  /** What an image file says of itself; absent where the device is not an image. */
  readonly details?: ImageDetails | undefined;
  /** What a person should know of what is read here, although it could be opened: a damaged image, say. */
  readonly warnings: readonly string[];
  /** Ranges that the files of an image do not have any more, and that read as zero because it was opened to rescue the rest. */
  readonly missing: readonly Range[];
  /** Fills `target` with the bytes at `offset`. */
  read(offset: number, target: Uint8Array, options?: RequestOptions): Promise<void>;
  /** Stores `source` at `offset`. */
  write(offset: number, source: Uint8Array, options?: WriteOptions): Promise<void>;
  /** @internal Writes whole units at once, without waiting; false where that cannot be. Absent where nothing can. */
  writeNow?(offset: number, source: Uint8Array): boolean;
  /** Makes a range read as zero, by writing zeroes where nothing better is known and `fast` allows it. */
  zero(offset: number, length: number, options?: ZeroOptions): Promise<void>;
  /** Says that a range is not needed any more; what it reads as afterwards is undefined. */
  discard(offset: number, length: number, options?: RequestOptions): Promise<void>;
  /** Makes every write that has completed durable; does nothing where the device has no way to. */
  flush(options?: RequestOptions): Promise<void>;
  /** The status of the whole of a range: one list for each context, in the order asked. */
  extents(offset: number, length: number, options?: ExtentsOptions): Promise<ExtentList[]>;
  /** What is known at once about a range: lists that begin at `offset`, and may end before the range does. */
  someExtents(offset: number, length: number, options?: ExtentsOptions): Promise<ExtentList[]>;
  /**
   * Copies a range from another device without the bytes passing through this process. Absent where nothing can be
   * copied so.
   *
   * @returns false where the two devices cannot; then read and write instead.
   */
  copyFrom?(source: BlockDevice, range: CopyRange, options?: RequestOptions): Promise<boolean>;
  /** Where bytes are kept as they are, and how many lie there in a row. Absent where nobody may know. */
  locate?(offset: number, length: number): Promise<Location>;
  /** @internal See {@link Driver.snapshot}. */
  readonly snapshot?: SnapshotSource | undefined;
  /** Tells this opening that another one has changed the device. */
  changedElsewhere(): void;
  /** @internal See {@link Driver.writesAgain}. */
  writesAgain?(): void;
  /** @internal See {@link Driver.forgotten}. */
  readonly forgotten?: LacunaError | undefined;
  /** Waits for the requests in flight and closes the device. Closing again is harmless. */
  close(): Promise<void>;
}

/** Whether a value is an open device, and not the name or the description of one. */
export function isBlockDevice(value: unknown): value is BlockDevice {
  return typeof value === 'object' && value !== null && 'someExtents' in value;
}
