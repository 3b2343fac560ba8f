import type { ExtentList } from '../../extent/index.js';

/**
 * What a server serves: the part of a device that NBD can ask for. Every `Device` is one. Requests may have
 * any size and alignment and run side by side; offsets and lengths lie inside the size.
 */
export interface NbdExportDevice {
  /** Bytes. */
  readonly size: number;
  readonly limits: NbdExportLimits;
  readonly capabilities: NbdExportCapabilities;
  /** Fills the whole of `target`. */
  read(offset: number, target: Uint8Array): Promise<void>;
  write(offset: number, source: Uint8Array, options: { fua: boolean }): Promise<void>;
  /** Fails with `ERR_DEVICE_UNSUPPORTED`, having changed nothing, where `fast` is asked and it would be slow. */
  zero(offset: number, length: number, options: NbdExportZeroOptions): Promise<void>;
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

export interface NbdExportLimits {
  /** Offsets and lengths should be multiples of this; a power of two. */
  readonly minimum: number;
  /** Multiples of this are fast; a power of two. */
  readonly preferred: number;
}

export interface NbdExportCapabilities {
  readonly write: boolean;
  /** Knows how to refuse a zero request that would be slow. */
  readonly fastZero: boolean;
  readonly discard: boolean;
  readonly flush: boolean;
  /** Metadata contexts that `someExtents` answers; `base:allocation` it always does. */
  readonly contexts: readonly string[];
  /** Status is exact and costs next to nothing, so that a read may ask for it first. */
  readonly exactStatus: boolean;
}

export interface NbdExportZeroOptions {
  readonly unmap: boolean;
  readonly fast: boolean;
  readonly fua: boolean;
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
  readonly device: NbdExportDevice;
  /** Refuse everything that changes the device. Default: only where the device is read-only. */
  readonly readOnly?: boolean;
  /** Bitmaps by name, served as `qemu:dirty-bitmap:NAME`. */
  readonly bitmaps?: Readonly<Record<string, NbdExportBitmap>>;
}
