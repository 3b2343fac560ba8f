export type { Leftover, Purpose } from '../files/index.js';
export { type CleanReport, cleanTarget } from './ends/clean.js';
export { type CommitOptions, type CommitReport, commit } from '../chain/commit.js';
export { type CompareOptions, type CompareReport, compare } from './compare.js';
export {
  copyFromStream,
  type FromStreamOptions,
} from './copy-from-stream.js';
export { copyToStream, type ToStreamOptions } from './copy-to-stream.js';
export { type DigestOptions, type DigestReport, digest } from './digest.js';
export { type CopyEvents, CopyJob, copy } from './job/job.js';
export type {
  CopyOptions,
  CopyPhase,
  CopyProgress,
  CopyReport,
  DetectZeroes,
  DeviceSource,
  ErrorPolicy,
  JobState,
  LeftOutRange,
  NewImageOptions,
  RetryOptions,
  Side,
  TransferOptions,
} from './options/options.js';
export { type Plan, type PlanOptions, plan } from './plan/plan.js';
export type { PlanMode, PlanScope, PlanTotals } from './options/scope.js';
export { type PopulateOptions, populate } from './populate.js';
export { type PlannedExtent, type ReadExtentsOptions, readExtents } from './read-extents.js';
export { type RebaseOptions, type RebaseProgress, type RebaseReport, rebase } from '../chain/rebase.js';
export type { StreamJob, StreamJobOptions, StreamReport } from './job/stream-job.js';
