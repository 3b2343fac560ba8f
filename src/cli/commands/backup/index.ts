import type { CommandRow } from '../../shell/index.js';

/** `lacuna backup` in the list of commands. */
export const backupRow: CommandRow = {
  usage: 'backup [options] <paths...>',
  summary: 'make a restore point of disks at rest, or of a running machine',
  load: async () => (await import('./backup.js')).registerBackup,
};
