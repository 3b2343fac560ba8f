import type { CommandRow } from '../../shell/index.js';

/** `lacuna amend` in the list of commands. */
export const amendRow: CommandRow = {
  usage: 'amend [options] <image>',
  summary: 'change how an image keeps its disk, in place',
  load: async () => (await import('./amend.js')).registerAmend,
};
