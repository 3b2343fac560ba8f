export { Trace } from './trace.js';
