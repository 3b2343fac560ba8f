export type { AddOptions, BitmapAction, BitmapsOfDevice, MergeSource } from './actions.js';
export type { Addition, BitmapStore } from './commands.js';
export type { StoredBitmap } from './content.js';
export { DirtyBitmap, type DirtyBitmapInfo } from './dirty-bitmap.js';
export { type BitmapUse, DirtyBitmaps, type DirtyBitmapsOptions } from './dirty-bitmaps.js';
export type { BitmapUser } from './entry.js';
export { exists, unknown } from './rules.js';
export type { WriteWatch } from './watch.js';
