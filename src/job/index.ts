export {
  clockAfterChange,
  clockAt,
  earliestTicket,
  longestPiece,
  timeUntil,
} from './byte-rate.js';
export type { EndStage, JobControl, PartJob, Steered } from './control.js';
export { Job, type JobCounts, type JobEvents, type JobWork } from './job.js';
export type { JobChange, JobMessage, SteerableJob } from './job-channel.js';
export {
  checkRate,
  JOB_OPTIONS,
  type JobOptions,
  type JobProgress,
  type JobState,
} from './progress.js';
export { RateSeries, SAMPLE_MS } from './rate-series.js';
export { stoppedError } from './stopped.js';
