import type { CommandRow } from '../../shell/index.js';

/** `lacuna copy` in the list of commands. */
export const copyRow: CommandRow = {
  usage: 'copy [options] <source> [target]',
  summary: 'make a target equal to a source',
  load: async () => (await import('./copy.js')).registerCopy,
};
