export { endTogether, type JobEnd, JobGroup } from './group.js';
export type { JobPart } from './part.js';
