export { lastingNameOf } from './block-device.js';
export { FileDriver } from './file.js';
export { guardImage } from './image-locks.js';
export { InheritedFile } from './inherited-file.js';
export type { RawPreallocation } from './preallocate.js';
export { createRawFile, type RawFileOptions, resizeRawFile } from './raw-file.js';
