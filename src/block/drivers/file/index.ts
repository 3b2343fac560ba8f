export { lastingNameOf } from './block-device.js';
export type { FileDescription } from './description.js';
export { FileDriver } from './file.js';
export { guardImage } from './image-locks.js';
export { InheritedFile } from './inherited-file.js';
export { file } from './kind.js';
export type { RawPreallocation } from './preallocate.js';
export { createRawFile, growRawFile, type RawFileOptions, resizeRawFile } from './raw-file.js';
