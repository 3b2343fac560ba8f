export { describeMissing, detailsOf, warningsOf } from './details.js';
export { Image, type ImageParts } from './image.js';
export { RunWalk } from './run-walk.js';
export { ChainStatus, CONTEXTS } from './status.js';
export { TableSlices } from './table-slices.js';
