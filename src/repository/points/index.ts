export { type PointName, selectPoint } from './select.js';
