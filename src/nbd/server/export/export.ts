import type { ExtentList } from '../../../extent/index.js';
import { optionCheck } from '../../../util/index.js';

/**
 * What a server serves: the part of a device that NBD can ask for. Every `Device` is one. Requests may have
 * any size and alignment and run side by side; offsets and lengths lie inside the size.
 */
export interface NbdExportDevice {
  /** Bytes. */
  readonly size: number;
  /** What clients are told of block sizes. */
  readonly limits: NbdExportLimits;
  /** What clients are told that it can do. */
  readonly capabilities: NbdExportCapabilities;
  /** Fills the whole of `target`. */
  read(offset: number, target: Uint8Array): Promise<void>;
  /** Stores the whole of `source`; with `fua` it is durable when the promise resolves. */
  write(offset: number, source: Uint8Array, options: { fua: boolean }): Promise<void>;
  /** Fails with `ERR_DEVICE_UNSUPPORTED`, having changed nothing, where `fast` is asked and it would be slow. */
  zero(offset: number, length: number, options: NbdExportZeroOptions): Promise<void>;
  /** Says that a range is not needed any more; what it reads as afterwards is undefined. */
  discard(offset: number, length: number, options: { signal: AbortSignal }): Promise<void>;
  /** Makes every write that has completed durable, whichever connection it came from. */
  flush(): Promise<void>;
  /** One list for each context; each begins at `offset` and may end before the range does. */
  someExtents(
    offset: number,
    length: number,
    options: { contexts: readonly string[]; signal: AbortSignal },
  ): Promise<ExtentList[]>;
}

/** Sizes in bytes that clients are told. */
export interface NbdExportLimits {
  /** Offsets and lengths should be multiples of this; a power of two. */
  readonly minimum: number;
  /** Multiples of this are fast; a power of two. */
  readonly preferred: number;
}

/** What a served device can do. All that changes it is refused without `write`. */
export interface NbdExportCapabilities {
  /** It is not read-only. */
  readonly write: boolean;
  /** Knows how to refuse a zero request that would be slow. */
  readonly fastZero: boolean;
  /** Can be told what is not needed any more. */
  readonly discard: boolean;
  /** Can make what was written durable. */
  readonly flush: boolean;
  /** Metadata contexts that `someExtents` answers; `base:allocation` it always does. */
  readonly contexts: readonly string[];
  /** Status is exact and costs next to nothing, so that a read may ask for it first. */
  readonly exactStatus: boolean;
}

/** How a client asked for zeroes (NBD_CMD_WRITE_ZEROES). */
export interface NbdExportZeroOptions {
  /** The range may become a hole. */
  readonly unmap: boolean;
  /** Fail rather than be as slow as writing. */
  readonly fast: boolean;
  /** The zeroes must be durable when the promise resolves. */
  readonly fua: boolean;
  /** Fires when the client is gone. */
  readonly signal: AbortSignal;
}

/** What marks dirty ranges; every `Bitmap` is one. It must not change its size while it is served. */
export interface NbdExportBitmap {
  /** Bytes of the disk that it speaks of. */
  readonly size: number;
  /** The dirty runs between two bytes, in order, clipped to them. */
  ranges(
    from?: number,
    end?: number,
  ): Iterable<{ readonly offset: number; readonly length: number }>;
}

/** One export of a server. */
export interface NbdExportOptions {
  /** What clients ask for; `''` is the export of clients that name none. */
  readonly name: string;
  /** For people who list the exports. */
  readonly description?: string;
  /** What is served. The server does not close it. */
  readonly device: NbdExportDevice;
  /** Refuse everything that changes the device. Default: only where the device is read-only. */
  readonly readOnly?: boolean;
  /** Bitmaps by name, served as `qemu:dirty-bitmap:NAME`. */
  readonly bitmaps?: Readonly<Record<string, NbdExportBitmap>>;
}

export const checkExportOptions = optionCheck<NbdExportOptions>({
  name: { needed: "what clients ask for; '' is the export of clients that name none" },
  device: { needed: 'what is served: an open Device, or an object with its methods' },
  description: 'any',
  readOnly: 'flag',
  bitmaps: 'any',
});
