export { EventLog } from './event-log.js';
export { graphChanges } from './graph-changes.js';
export { Maps } from './maps.js';
export { shownJob, stateOf, type WatchState } from './picture.js';
