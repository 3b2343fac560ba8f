export { FixedWriter } from './fixed-writer.js';
export type { GuestWriter, Reserved } from './guest-writer.js';
export { checkWritable, longestZero } from './limits.js';
