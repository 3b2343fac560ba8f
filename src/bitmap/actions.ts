import type { Bitmap } from './bitmap.js';

/** A bitmap to be added to a device. */
export interface AddOptions {
  /** 1 to 1023 bytes in UTF-8, and not the name of another bitmap of the device. */
  name: string;
  /** Bytes that one bit stands for: a power of two from 512 to 2^31. Default: the device's. */
  granularity?: number;
  /** Whether it is to be stored with the disk. Default false. */
  persistent?: boolean;
  /** Begin without recording. Default false. */
  disabled?: boolean;
}

/** The bitmaps of a device as a place to merge from: DirtyBitmaps is one. */
export interface BitmapsOfDevice {
  /** @internal The bits as they are now, only to be read. */
  look(name: string): Bitmap;
}

/** What to merge: a bitmap of the same device, of another one, or of no device at all. */
export type MergeSource = string | Bitmap | { bitmaps: BitmapsOfDevice; name: string };

/** One command of a transaction; see the method of the same name. */
export type BitmapAction =
  | ({ type: 'add' } & AddOptions)
  | { type: 'remove' | 'clear' | 'enable' | 'disable'; name: string }
  | { type: 'merge'; target: string; sources: readonly MergeSource[] };
