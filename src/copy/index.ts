export type { Leftover, Purpose } from '../files/index.js';
export { type CompareOptions, type CompareReport, compare } from './compare.js';
export {
  copyFromStream,
  type FromStreamOptions,
} from './copy-from-stream.js';
export { copyToStream, type ToStreamOptions } from './copy-to-stream.js';
export { type DigestOptions, type DigestReport, digest } from './digest.js';
export { type CleanReport, cleanTarget } from './ends/index.js';
export {
  CopyJob,
  copy,
  StreamJob,
  type StreamProgress,
  type StreamReport,
} from './job/index.js';
export type {
  CopyOptions,
  CopyPhase,
  CopyProgress,
  CopyReport,
  DetectZeroes,
  DeviceSource,
  ErrorPolicy,
  LeftOutRange,
  NewImageOptions,
  PlanMode,
  PlanScope,
  PlanTotals,
  RetryOptions,
  Side,
  TransferOptions,
} from './options/index.js';
export { type Plan, type PlanOptions, plan } from './plan/index.js';
export { type PopulateOptions, populate } from './populate.js';
export { type PlannedExtent, type ReadExtentsOptions, readExtents } from './view/index.js';
