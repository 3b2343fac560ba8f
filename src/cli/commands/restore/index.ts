export { registerRestore } from './restore.js';
