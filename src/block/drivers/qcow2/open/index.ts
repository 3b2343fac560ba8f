export { Qcow2Driver } from './qcow2.js';
