export { registerCompare } from './compare.js';
