export { type Checked, checkImage } from './check.js';
