export {
  type ChangedRange,
  type DiffOptions,
  type DiffReport,
  type DiskDiff,
  diff,
} from './diff.js';
