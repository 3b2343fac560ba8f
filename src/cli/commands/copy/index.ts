export { registerCopy } from './copy.js';
