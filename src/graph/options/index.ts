export {
  type AddExportOptions,
  checkAdd,
  checkExport,
  checkGraphOptions,
  checkInsertion,
  checkName,
  checkNotOfJob,
  checkPermissions,
  type FilterInsertion,
  type GraphOptions,
} from './options.js';
export {
  type ChildReplacement,
  checkReplacement,
  expectedNow,
  resolveReplacement,
} from './replacement.js';
