export type { CopyMode } from '../block/index.js';
export type { ViewCopyOptions, ViewReadOptions } from '../copy/view/index.js';
export {
  BackupDisk,
  type BackupOptions,
  GraphBackup,
} from './backup/index.js';
export type { Reopening } from './change/index.js';
export {
  type AddNodeOptions,
  type EdgePicture,
  type FilterNodeDescription,
  type GraphPicture,
  type Named,
  type Node,
  type NodeDescription,
  type NodePicture,
  type Permission,
  RecordingDevice,
  type Root,
  type UserPicture,
  type WithNames,
  type WithoutFile,
} from './core/index.js';
export type {
  CopyBeforeWriteDescription,
  CopyOnReadDescription,
  SnapshotAccessDescription,
} from './filters/index.js';
export { Graph } from './graph.js';
export type {
  BackupJobOptions,
  BackupJobReport,
  BackupPair,
  BitmapMode,
  CommitJobOptions,
  CommitJobProgress,
  CommitJobReport,
  GraphJobOptions,
  JobErrorPolicy,
  MirrorChange,
  MirrorOptions,
  MirrorProgress,
  MirrorReport,
  PopulateFrom,
  PopulateJobOptions,
  PopulateJobReport,
  PopulateOperation,
  PopulateSource,
  PopulateTarget,
  StreamJobOptions,
  StreamJobReport,
  SyncMode,
} from './jobs/index.js';
export { CommitJob, GraphJob, LiveJob, MirrorJob } from './jobs/index.js';
export type {
  AddExportOptions,
  ChildReplacement,
  FilterInsertion,
  GraphOptions,
} from './options/index.js';
export type {
  CreateImageOptions,
  CreateImageReport,
  SnapshotDisk,
  SnapshotOptions,
} from './snapshot/index.js';
export type {
  GraphAction,
  TransactionJob,
  TransactionOptions,
  TransactionResult,
} from './transaction/index.js';
