export { registerBitmap } from './bitmap.js';
