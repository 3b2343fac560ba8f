export { Control, type Counters } from './control.js';
export { FirstDifference } from './first-difference.js';
