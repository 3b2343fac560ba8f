export { readBackupWish } from './backup-wish.js';
export { prepareBackup } from './prepare-backup.js';
export { readSteering, steer } from './steer.js';
export type { BackupWish, SteeredJob, WatchedJob, WatchedJobs } from './watched-job.js';
export { hasEnded } from './watched-job.js';
