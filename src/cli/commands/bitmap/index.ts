import type { CommandRow } from '../../shell/index.js';

/** `lacuna bitmap` in the list of commands. */
export const bitmapRow: CommandRow = {
  usage: 'bitmap',
  summary: 'look at and change the bitmaps that an image keeps',
  load: async () => (await import('./bitmap.js')).registerBitmap,
};
