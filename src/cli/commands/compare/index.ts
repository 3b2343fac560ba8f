import type { CommandRow } from '../../shell/index.js';

/** `lacuna compare` in the list of commands. */
export const compareRow: CommandRow = {
  usage: 'compare [options] <a> <b>',
  summary: 'tell whether two devices hold the same bytes',
  load: async () => (await import('./compare.js')).registerCompare,
};
