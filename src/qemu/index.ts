/** Live backup of running machines. */
export {
  backupMachine,
  type MachineBackupOptions,
  type MachinePlan,
  planMachine,
} from './backup-machine.js';
export type { DiskChoice, DiskPlan, MachineDisk } from './inspect/index.js';
export { Machine, type MachineOptions } from './machine.js';
export type {
  MachineBitmap,
  MachinePopulateOptions,
  MachinePopulateReport,
  PopulatedBitmap,
  PopulateTarget,
} from './populate/index.js';
export type { RecoverOptions, RecoverReport } from './recover.js';
export {
  type BackupOptions,
  type BackupPlan,
  type BackupPlanOptions,
  BackupSession,
  type FinishReport,
  type FreezePolicy,
  type PointDisk,
  type PointInTime,
  type SessionCopyOptions,
  SessionDisk,
  type SessionReadOptions,
} from './session/index.js';
export type { ViewKind } from './view/index.js';
