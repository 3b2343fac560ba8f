export { GRAPH_JOB_OPTIONS, GraphJob, type GraphJobOptions } from './graph-job.js';
export { endAlone, type JobEnd } from './job-end.js';
export { endInGroup, type GroupMember, heed, JobGroup } from './job-group.js';
export { JobList } from './job-list.js';
export { LiveJob } from './live-job.js';
export { beginAlone, type JobPart } from './part.js';
export { endAtLast, isBusy } from './quiet.js';
export { type Ending, Wish } from './wish.js';
