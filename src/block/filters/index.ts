export { GrowingFile } from './growing-file.js';
