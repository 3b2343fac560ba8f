export { Comparison } from './comparison.js';
export { CopyRun, MOST_MISSING } from './copy-run.js';
export { checkTransfer, defaultRequestSize, REQUESTS } from './transfer.js';
