export { Allocator, type Run } from './allocator.js';
export { compressorFor } from './compress.js';
export { FixedWriter } from './fixed-writer.js';
export type { GuestWriter } from './guest-writer.js';
export { checkWritable, ImageWriter, longestZero } from './image-writer.js';
export type { Reserved } from './preallocator.js';
export { referencesOf } from './table-references.js';
