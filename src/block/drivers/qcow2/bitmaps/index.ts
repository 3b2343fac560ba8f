export type { BitmapSection } from './bitmap-section.js';
export { ImageBitmaps, readBitmapSections } from './image-bitmaps.js';
export { OpenBitmaps } from './open-bitmaps.js';
export { refuseOverlaps } from './table-places.js';
