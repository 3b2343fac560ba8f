export { checkBytes, checkRange, granularityShift } from './arguments.js';
export { Bitmap, type BitmapOptions, type ClaimOptions } from './bitmap.js';
