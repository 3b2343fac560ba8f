import type { CommandRow } from '../../shell/index.js';

/** `lacuna unlock` in the list of commands. */
export const unlockRow: CommandRow = {
  usage: 'unlock [options] <repository>',
  summary: 'remove locks that a dead host has left',
  load: async () => (await import('./unlock.js')).registerUnlock,
};
