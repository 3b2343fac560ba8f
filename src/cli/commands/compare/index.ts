export { compareWithBar, registerCompare } from './compare.js';
