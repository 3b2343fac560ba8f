export { ended, violation, wireErrno } from './failures.js';
