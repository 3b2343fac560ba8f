export { AllowedFiles } from './allowed-files.js';
export { BackupAccess } from './backup-access.js';
export { Control } from './control.js';
export { JOB_STATUSES, JOB_TYPES } from './daemon-job.js';
export { checkBitmap, checkNotBusy, nodeNamed, nodeOfBitmap } from './nodes.js';
export { Objects } from './objects.js';
export { isId, refusal } from './refusal.js';
export { changedLimits, LIMIT_NAMES, type NamedLimits } from './throttle-limits.js';
