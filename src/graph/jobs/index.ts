export {
  type BackupJobOptions,
  type BackupJobReport,
  type BackupPair,
  type BitmapMode,
  backup,
  type JobErrorPolicy,
  type SyncMode,
} from './backup/index.js';
export { type StreamJobOptions, type StreamJobReport, stream } from './stream/index.js';
