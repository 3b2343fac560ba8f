import type { CommandRow } from '../../shell/index.js';

/** `lacuna prune` in the list of commands. */
export const pruneRow: CommandRow = {
  usage: 'prune [options] <repository>',
  summary: 'remove restore points that no rule keeps',
  load: async () => (await import('./prune.js')).registerPrune,
};
