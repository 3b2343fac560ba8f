import type { CommandRow } from '../../shell/index.js';

/** `lacuna list` in the list of commands. */
export const listRow: CommandRow = {
  usage: 'list [options] <repository>',
  summary: 'list the restore points of a repository',
  load: async () => (await import('./list.js')).registerList,
};
