export type { Remains } from './checkpoints.js';
export { Resumption } from './resumption.js';
