export {
  type BackupJobOptions,
  type BackupJobReport,
  type BackupPair,
  type BitmapMode,
  backup,
  type JobErrorPolicy,
  type SyncMode,
} from './backup/index.js';
export {
  type PopulateFrom,
  type PopulateJobOptions,
  type PopulateJobReport,
  type PopulateOperation,
  type PopulateSource,
  type PopulateTarget,
  populate,
} from './populate/index.js';
export { type StreamJobOptions, type StreamJobReport, stream } from './stream/index.js';
