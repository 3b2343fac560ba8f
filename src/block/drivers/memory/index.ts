export { MemoryDriver } from './memory.js';
