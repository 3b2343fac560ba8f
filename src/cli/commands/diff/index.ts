export { registerDiff } from './diff.js';
