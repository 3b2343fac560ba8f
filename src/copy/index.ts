export { type CompareOptions, type CompareReport, compare } from './compare.js';
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
export type { PlanMode, PlanScope } from './plan-walk.js';
export { type PopulateOptions, populate } from './populate.js';
