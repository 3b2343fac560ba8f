import type { CommandRow } from '../../shell/index.js';

/** `lacuna snapshot` in the list of commands. */
export const snapshotRow: CommandRow = {
  usage: 'snapshot [options] <image>',
  summary: 'list, take, apply and delete internal snapshots',
  load: async () => (await import('./snapshot.js')).registerSnapshot,
};
