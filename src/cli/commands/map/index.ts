export { registerMap } from './map.js';
