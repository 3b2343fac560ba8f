export {
  type BackupJobOptions,
  type BackupJobReport,
  type BackupPair,
  type BitmapMode,
  backup,
  type JobErrorPolicy,
  type SyncMode,
} from './backup/index.js';
