import type { CommandRow } from '../../shell/index.js';

/** `lacuna create` in the list of commands. */
export const createRow: CommandRow = {
  usage: 'create [options] <image> [size]',
  summary: 'make an empty disk, or an image over a backing file',
  load: async () => (await import('./create.js')).registerCreate,
};
