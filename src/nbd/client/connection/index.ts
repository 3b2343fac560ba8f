export { converse } from './converse.js';
export { checkTimeLimit } from './time-limits.js';
export type { Transport } from './transport.js';
