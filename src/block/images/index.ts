export { BitmapImage, type BitmapImageOptions, openBitmaps } from './bitmap-image.js';
export { type ExportBitmapOptions, exportBitmap } from './export-bitmap.js';
