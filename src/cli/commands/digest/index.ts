export { registerDigest } from './digest.js';
