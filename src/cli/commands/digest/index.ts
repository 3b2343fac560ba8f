import type { CommandRow } from '../../shell/index.js';

/** `lacuna digest` in the list of commands. */
export const digestRow: CommandRow = {
  usage: 'digest [options] <source>',
  summary: 'name what a device holds by one hash',
  load: async () => (await import('./digest.js')).registerDigest,
};
