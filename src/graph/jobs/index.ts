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
  commit,
  commitPart,
} from './commit/index.js';
export {
  GraphJob,
  type GraphJobOptions,
  JobGroup,
  JobList,
  type JobPart,
  LiveJob,
} from './group/index.js';
export {
  type MirrorChange,
  MirrorJob,
  type MirrorOptions,
  type MirrorProgress,
  type MirrorReport,
  mirror,
  mirrorPart,
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
export type { BitmapMode, JobErrorPolicy, SyncMode } from './rounds/index.js';
export { type StreamJobOptions, type StreamJobReport, stream, streamPart } from './stream/index.js';
