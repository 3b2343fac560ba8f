export { type AmendOptions, type AmendReport, amendQcow2 } from './amend-image.js';
export { BitmapImage, type BitmapImageOptions, openBitmaps } from './bitmap-image.js';
export { openUnrecorded, resizeQcow2, setBackingName } from './change-image.js';
export type { CheckReport } from './check-file.js';
export { type CheckOptions, checkQcow2 } from './check-image.js';
export { type ExportBitmapOptions, exportBitmap } from './export-bitmap.js';
export { type ResizeOptions, type ResizeReport, resizeImage } from './resize-image.js';
export {
  applySnapshot,
  createSnapshot,
  deleteSnapshot,
  type SnapshotOptions,
} from './snapshots.js';
