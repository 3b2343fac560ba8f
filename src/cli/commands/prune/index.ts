export { registerPrune } from './prune.js';
