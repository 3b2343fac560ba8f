export { readBackupWish } from './backup-wish.js';
export { GraphJobs, prepareBackup } from './graph-jobs.js';
export { readSteering, steer } from './steer.js';
export type { BackupWish, SteeredJob, WatchedJob, WatchedJobs } from './watched-job.js';
export { hasEnded } from './watched-job.js';
