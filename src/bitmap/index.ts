export {
  Arena,
  type ArenaBlock,
  type ArenaOptions,
  type BitmapHandle,
  type KernelVariant,
  type SharedArena,
} from '../wasm/index.js';
export type { AddOptions, BitmapAction, BitmapsOfDevice, MergeSource } from './named/actions.js';
export { Bitmap, type BitmapOptions, type ClaimOptions } from './bits/bitmap.js';
export { BitmapFile, type BitmapFileOptions } from './files/bitmap-file.js';
export type { Addition, BitmapStore } from './named/commands.js';
export type { StoredBitmap } from './named/content.js';
export { DirtyBitmap, type DirtyBitmapInfo } from './named/dirty-bitmap.js';
export { type BitmapUse, DirtyBitmaps, type DirtyBitmapsOptions } from './named/dirty-bitmaps.js';
export type { BitmapUser } from './named/entry.js';
export type { Range } from './bits/ranges.js';
