import type { CommandRow } from '../../shell/index.js';

/** `lacuna populate` in the list of commands. */
export const populateRow: CommandRow = {
  usage: 'populate [options] <source...>',
  summary: 'make a dirty bitmap of what is allocated',
  load: async () => (await import('./populate.js')).registerPopulate,
};
