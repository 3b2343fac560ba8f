export { Arena, type ArenaOptions, type BitmapHandle, type SharedArena } from '../wasm/index.js';
export { Bitmap, type BitmapOptions, type ClaimOptions } from './bitmap.js';
export type { Range } from './ranges.js';
