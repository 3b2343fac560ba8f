import type { CommandRow } from '../../shell/index.js';

/** `lacuna rebase` in the list of commands. */
export const rebaseRow: CommandRow = {
  usage: 'rebase [options] <image>',
  summary: 'give an image another backing file',
  load: async () => (await import('./rebase.js')).registerRebase,
};
