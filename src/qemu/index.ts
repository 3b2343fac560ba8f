/** Live backup of running machines. */
export type { ViewCopyOptions, ViewReadOptions } from '../copy/view/index.js';
export {
  backupMachine,
  type MachineBackupOptions,
  type MachinePlan,
  planMachine,
} from './backup-machine.js';
export type { BackupHooks, BackupOutcome } from './hooks.js';
export type {
  DiskChoice,
  DiskInfo,
  DiskPlan,
  MachineDisk,
  PlannedDisk,
} from './inspect/index.js';
export { type DomainPlan, LibvirtMachine, type LibvirtMachineOptions } from './libvirt/index.js';
export { Machine, type MachineOptions } from './machine.js';
export type {
  MigrateOptions,
  MigratePhase,
  MigratePlan,
  MigratePlanDisk,
  MigratePlanOptions,
  MigrateProgress,
  MigrateReport,
  MigrateRound,
} from './migrate/index.js';
export type { MirrorOptions, MirrorProgress, MirrorReport } from './mirror/index.js';
export type {
  MachineBitmap,
  MachinePopulateOptions,
  MachinePopulateReport,
  PopulatedBitmap,
  PopulateTarget,
} from './populate/index.js';
export type { PushProgress, SessionPush } from './push/index.js';
export { type MachineRecoverOptions, recoverMachine } from './recover-machine.js';
export {
  type BackupOptions,
  type BackupPlan,
  type BackupPlanOptions,
  BackupSession,
  type Fetch,
  type FinishReport,
  type FreezePolicy,
  type PointDisk,
  type PointInTime,
  type RecoverOptions,
  type RecoverReport,
  SessionDisk,
} from './session/index.js';
export type { ViewKind } from './view/index.js';
