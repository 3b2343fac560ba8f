export { backup, planBackup } from './backup.js';
export {
  type BackupDisk,
  type BackupOptions,
  type BackupReport,
  checkPointOptions,
  type DiskPlan,
  type DiskReport,
  type ParentPoint,
} from './options.js';
export { type Drive, storeImage } from './store-disk.js';
