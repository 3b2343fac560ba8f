export { endTogether, type JobEnd, JobGroup } from './group.js';
export { beginAlone, type JobPart } from './part.js';
