export { type CompareOptions, type CompareReport, compare } from './compare.js';
export {
  copyFromStream,
  type FromStreamOptions,
  type StreamReport,
} from './copy-from-stream.js';
export { copyToStream, type ToStreamOptions } from './copy-to-stream.js';
export { type DigestOptions, type DigestReport, digest } from './digest.js';
export { CopyJob, copy } from './job.js';
export type {
  CopyOptions,
  CopyPhase,
  CopyProgress,
  CopyReport,
  DetectZeroes,
  DeviceSource,
  TransferOptions,
} from './options.js';
export { type Plan, type PlanOptions, type PlanTotals, plan } from './plan.js';
