export { registerInfo } from './info.js';
