export type { WatchAddress } from './http/index.js';
export {
  type BackupWish,
  prepareBackup,
  type SteeredJob,
  type WatchedJob,
  type WatchedJobs,
} from './jobs/index.js';
export { startWatch, type Watch, type WatchOptions } from './watch.js';
