export { readBackupWish } from './backup-wish.js';
export { GraphJobs } from './graph-jobs.js';
export { readSteering, steer } from './steer.js';
export type { WatchedJob, WatchedJobs } from './watched-job.js';
