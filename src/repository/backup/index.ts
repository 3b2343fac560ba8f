export { backup, planBackup } from './backup.js';
export type {
  BackupDisk,
  BackupOptions,
  BackupReport,
  DiskPlan,
  DiskReport,
  ParentPoint,
} from './options.js';
export { type Drive, storeImage } from './store-disk.js';
