import type { CommandRow } from '../../shell/index.js';

/** `lacuna resize` in the list of commands. */
export const resizeRow: CommandRow = {
  usage: 'resize [options] <image> <size>',
  summary: 'make the disk of a file larger or smaller',
  load: async () => (await import('./resize.js')).registerResize,
};
