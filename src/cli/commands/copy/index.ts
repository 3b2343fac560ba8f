export { registerCopy } from './copy.js';
export { describeCopy, showProgress } from './copy-report.js';
