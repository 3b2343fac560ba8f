import type { CommandRow } from '../../shell/index.js';

/** `lacuna check` in the list of commands. */
export const checkRow: CommandRow = {
  usage: 'check [options] <image>',
  summary: 'look for errors and lost space in an image, and repair it',
  load: async () => (await import('./check.js')).registerCheck,
};
