export { Allocator, type Run } from './allocator.js';
export { compressorFor } from './compress.js';
export { ImageWriter } from './image-writer.js';
export { referencesOf } from './table-references.js';
