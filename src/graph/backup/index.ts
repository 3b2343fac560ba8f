export { BackupDisk } from './backup-disk.js';
export { GraphBackup } from './graph-backup.js';
export { type BackupOptions, openBackup } from './open-backup.js';
