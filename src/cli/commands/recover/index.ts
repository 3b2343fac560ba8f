import type { CommandRow } from '../../shell/index.js';

/** `lacuna recover` in the list of commands. */
export const recoverRow: CommandRow = {
  usage: 'recover [options] <repository>',
  summary: 'take away what a killed backup has left in a running machine',
  load: async () => (await import('./recover.js')).registerRecover,
};
