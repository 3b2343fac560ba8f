import type { CommandRow } from '../../shell/index.js';

/** `lacuna diff` in the list of commands. */
export const diffRow: CommandRow = {
  usage: 'diff [options] <repository> <point> <other>',
  summary: 'tell what changed between two restore points',
  load: async () => (await import('./diff.js')).registerDiff,
};
