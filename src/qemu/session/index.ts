export {
  type BackupOptions,
  type BackupPlanOptions,
  checkBackupOptions,
  checkPlanOptions,
  type FreezePolicy,
} from './options.js';
export { type BackupPlan, planBackup, serverInTheWay } from './plan-backup.js';
export { BackupSession, type FinishReport, type PointDisk, type PointInTime } from './session.js';
export { type SessionCopyOptions, SessionDisk, type SessionReadOptions } from './session-disk.js';
export { startSession } from './start.js';
export type { Target } from './target.js';
