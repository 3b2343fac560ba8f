export {
  type BackupJobOptions,
  type BackupJobReport,
  type BackupPair,
  backup,
  backupPart,
} from './backup/index.js';
export {
  CommitJob,
  type CommitJobOptions,
  type CommitJobProgress,
  type CommitJobReport,
} from './commit/index.js';
export { JobGroup, type JobPart } from './group/index.js';
export {
  type MirrorChange,
  MirrorJob,
  type MirrorOptions,
  type MirrorProgress,
  type MirrorReport,
} from './mirror/index.js';
export {
  type PopulateFrom,
  type PopulateJobOptions,
  type PopulateJobReport,
  type PopulateOperation,
  type PopulateSource,
  type PopulateTarget,
  populate,
  populatePart,
} from './populate/index.js';
export { type BitmapMode, type JobErrorPolicy, LiveJob, type SyncMode } from './rounds/index.js';
export { type StreamJobOptions, type StreamJobReport, stream } from './stream/index.js';
