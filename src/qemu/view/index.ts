export { EventWatch } from './event-watch.js';
export { isSound, JobWatch } from './job-watch.js';
export { Teardown } from './teardown.js';
export { COMMON_NEEDS, type ViewedDisk, type ViewKind, ViewMaker, viewKindOf } from './view.js';
