export { BitmapImage, type BitmapImageOptions, openBitmaps } from './bitmap-image.js';
export { openUnrecorded, resizeQcow2, setBackingName } from './change-image.js';
export { type CheckOptions, type CheckReport, checkQcow2 } from './check-image.js';
export { type ExportBitmapOptions, exportBitmap } from './export-bitmap.js';
