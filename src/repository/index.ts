export type {
  BackupDisk,
  BackupOptions,
  BackupReport,
  DiskPlan,
  DiskReport,
  ParentPoint,
} from './backup/index.js';
export type { ChangedRange, DiffOptions, DiffReport, DiskDiff } from './diff/index.js';
export type { FoundLock, Holder, LockFile, LockKind } from './lock/index.js';
export type {
  BackupMode,
  DiskManifest,
  GoneImage,
  ImageFile,
  ImageState,
  LeavesState,
  Manifest,
} from './manifest/index.js';
export type { PointBelow, PointName } from './points/index.js';
export { pointBelow } from './points/index.js';
export type {
  KeepRules,
  MergedDisk,
  PrunedMachine,
  PruneOptions,
  PruneReport,
} from './prune/index.js';
export { type MachineList, type OpenRepositoryOptions, Repository } from './repository.js';
export type { RestoreOptions, RestoreReport, RestoreTarget } from './restore/index.js';
export type { ServedPoint, ServePointOptions } from './serve/index.js';
export type {
  Problem,
  VerifiedPoint,
  VerifiedTimes,
  VerifyOptions,
  VerifyReport,
} from './verify/index.js';
export type { RepositoryProgress, RepositoryStep } from './work/index.js';
