export { Qcow2Driver } from './qcow2.js';
export { setBackingFile } from './set-backing.js';
