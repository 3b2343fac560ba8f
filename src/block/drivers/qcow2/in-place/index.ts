export { FixedWriter } from './fixed-writer.js';
export type { Growth, GuestWriter, Reserved } from './guest-writer.js';
export { checkWritable, longestZero } from './limits.js';
