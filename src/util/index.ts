export { alignDown, alignUp, isPowerOfTwo } from './align.js';
export { syncFolder } from './folder.js';
export { parseSize } from './size.js';
