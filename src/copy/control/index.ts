export { Control, type Counters } from './control.js';
export { checkRate } from './rate-limit.js';
