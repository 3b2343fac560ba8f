export { alignDown, alignUp, isPowerOfTwo } from './align.js';
export { parseSize } from './size.js';
export { Turns } from './turns.js';
