export { BitmapFile, type BitmapFileOptions } from './bitmap-file.js';
export { checksumOf, writeBitmaps } from './file-writer.js';
