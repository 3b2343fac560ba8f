export type { Range } from '../extent/index.js';
export {
  Arena,
  type ArenaBlock,
  type ArenaOptions,
  type BitmapHandle,
  type KernelVariant,
  type SharedArena,
} from '../wasm/index.js';
export { Bitmap, type BitmapOptions, type ClaimOptions } from './bits/index.js';
export { BitmapFile, type BitmapFileOptions } from './files/index.js';
export {
  type Addition,
  type AddOptions,
  type BitmapAction,
  type BitmapStore,
  type BitmapsOfDevice,
  type BitmapUse,
  type BitmapUser,
  DirtyBitmap,
  type DirtyBitmapInfo,
  DirtyBitmaps,
  type DirtyBitmapsOptions,
  type MergeSource,
  type StoredBitmap,
  type WriteWatch,
} from './named/index.js';
