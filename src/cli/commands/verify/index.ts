export { registerVerify } from './verify.js';
