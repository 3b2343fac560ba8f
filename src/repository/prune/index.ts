export type { KeepRules } from './keep.js';
export {
  type MergedDisk,
  type PrunedMachine,
  type PruneOptions,
  type PruneReport,
  prune,
} from './prune.js';
