export { follow } from './follow.js';
export { type CopyEvents, CopyJob, copy } from './job.js';
export { Brake, type StreamJob, type StreamJobOptions, type StreamReport } from './stream-job.js';
