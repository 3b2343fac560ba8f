export type { Leftover, Purpose } from '../files/index.js';
export { type CleanReport, cleanTarget } from './clean.js';
export { type CommitOptions, type CommitReport, commit } from './commit.js';
export { type CompareOptions, type CompareReport, compare } from './compare.js';
export {
  copyFromStream,
  type FromStreamOptions,
} from './copy-from-stream.js';
export { copyToStream, type ToStreamOptions } from './copy-to-stream.js';
export { type DigestOptions, type DigestReport, digest } from './digest.js';
export { type CopyEvents, CopyJob, copy } from './job.js';
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
} from './options.js';
export { type Plan, type PlanOptions, plan } from './plan.js';
export type { PlanMode, PlanScope, PlanTotals } from './plan-scope.js';
export { type PopulateOptions, populate } from './populate.js';
export { type PlannedExtent, type ReadExtentsOptions, readExtents } from './read-extents.js';
export { type RebaseOptions, type RebaseProgress, type RebaseReport, rebase } from './rebase.js';
export type { StreamJob, StreamJobOptions, StreamReport } from './stream-job.js';
