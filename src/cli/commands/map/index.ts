import type { CommandRow } from '../../shell/index.js';

/** `lacuna map` in the list of commands. */
export const mapRow: CommandRow = {
  usage: 'map [options] <source>',
  summary: 'show what is data, zero, hole or dirty',
  load: async () => (await import('./map.js')).registerMap,
};
