export {
  Arena,
  type ArenaBlock,
  type ArenaOptions,
  type BitmapHandle,
  type KernelVariant,
  type SharedArena,
} from '../wasm/index.js';
export type { AddOptions, BitmapAction, BitmapsOfDevice, MergeSource } from './actions.js';
export { Bitmap, type BitmapOptions, type ClaimOptions } from './bitmap.js';
export { BitmapFile, type BitmapFileOptions } from './bitmap-file.js';
export type { Addition, BitmapStore } from './commands.js';
export type { StoredBitmap } from './content.js';
export { DirtyBitmap, type DirtyBitmapInfo } from './dirty-bitmap.js';
export { type BitmapUse, DirtyBitmaps, type DirtyBitmapsOptions } from './dirty-bitmaps.js';
export type { BitmapUser } from './entry.js';
export type { Range } from './ranges.js';
