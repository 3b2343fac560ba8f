import type { CommandRow } from '../../shell/index.js';

/** `lacuna commit` in the list of commands. */
export const commitRow: CommandRow = {
  usage: 'commit [options] <top>',
  summary: 'put what an image holds into its backing file',
  load: async () => (await import('./commit.js')).registerCommit,
};
