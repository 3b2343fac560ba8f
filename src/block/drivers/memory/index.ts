export type { MemoryDescription } from './description.js';
export { memory } from './kind.js';
export { MemoryDriver } from './memory.js';
