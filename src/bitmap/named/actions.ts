import { optionCheck } from '../../util/index.js';
import type { Bitmap } from '../bits/index.js';

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
  | { type: 'freeze' | 'abdicate' | 'reclaim' | 'drop'; name: string }
  | { type: 'merge'; target: string; sources: readonly MergeSource[] };

const NAME = { needed: 'what the bitmap is called, 1 to 1023 bytes' } as const;
/** Every type of action. */
export const ACTION_TYPES =
  'add, remove, clear, enable, disable, merge, freeze, abdicate, reclaim or drop';

const TYPE = { needed: ACTION_TYPES } as const;
const ADD = { name: NAME, granularity: 'any', persistent: 'flag', disabled: 'flag' } as const;

export const checkAddOptions = optionCheck<AddOptions>(ADD);

export const checkAddAction = optionCheck<AddOptions & { type: string }>({ ...ADD, type: TYPE });

export const checkNameAction = optionCheck<{ type: string; name: string }>({
  type: TYPE,
  name: NAME,
});

export const checkMergeAction = optionCheck<{ type: string; target: string; sources: unknown }>({
  type: TYPE,
  target: { needed: 'the name of the bitmap that is merged into' },
  sources: { needed: 'a list of names and Bitmaps' },
});
