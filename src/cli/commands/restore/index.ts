import type { CommandRow } from '../../shell/index.js';

/** `lacuna restore` in the list of commands. */
export const restoreRow: CommandRow = {
  usage: 'restore [options] <repository> <point> <target>',
  summary: 'make disks what they were at a restore point',
  load: async () => (await import('./restore.js')).registerRestore,
};
