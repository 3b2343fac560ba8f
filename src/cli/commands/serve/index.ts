export { registerServe } from './serve.js';
