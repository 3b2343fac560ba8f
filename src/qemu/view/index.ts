export { Teardown } from './teardown.js';
export { type ViewedDisk, type ViewKind, ViewMaker, viewKindOf } from './view.js';
