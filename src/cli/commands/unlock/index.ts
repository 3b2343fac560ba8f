export { registerUnlock } from './unlock.js';
