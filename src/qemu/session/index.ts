export { Beginning, beginSession, type Starter } from './beginning.js';
export { Freezer } from './freezer.js';
export {
  type FoundBackup,
  findInterrupted,
  type WantedBackup,
} from './interrupted.js';
export { journalOf, machineJob, noteLeft } from './machine-job.js';
export {
  type BackupOptions,
  type BackupPlanOptions,
  checkBackupOptions,
  checkPlanOptions,
  checkScratchBytes,
  type Fetch,
  type FreezePolicy,
} from './options.js';
export {
  type BackupPlan,
  freeBytes,
  planBackup,
  refuseObstacles,
  serverInTheWay,
} from './plan-backup.js';
export { type PointDisk, type PointInTime, pointOf } from './point.js';
export {
  checkRecoverOptions,
  type RecoverOptions,
  type RecoverReport,
} from './recover-options.js';
export { Recovery, THAW_MS } from './recovery.js';
export { holdPoint, refuseImageOfPoint } from './restore-points.js';
export { scratchLimit } from './scratch-limit.js';
export { BackupSession, type FinishReport } from './session.js';
export { SessionDisk } from './session-disk.js';
export type { SessionHold } from './session-hold.js';
export { startSession } from './start.js';
export type { Target } from './target.js';
