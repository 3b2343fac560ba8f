import type { CommandRow } from '../../shell/index.js';

/** `lacuna info` in the list of commands. */
export const infoRow: CommandRow = {
  usage: 'info [options] <source>',
  summary: 'show size, limits and abilities of a device',
  load: async () => (await import('./info.js')).registerInfo,
};
