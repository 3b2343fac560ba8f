export {
  Arena,
  type ArenaBlock,
  type ArenaOptions,
  type BitmapHandle,
  type KernelVariant,
  type SharedArena,
} from '../wasm/index.js';
export { Bitmap, type BitmapOptions, type ClaimOptions } from './bitmap.js';
export type { Range } from './ranges.js';
