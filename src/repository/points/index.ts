export { type PointBelow, pointBelow } from './point-below.js';
export { type PointName, selectPoint } from './select.js';
