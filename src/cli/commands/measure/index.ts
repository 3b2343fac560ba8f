import type { CommandRow } from '../../shell/index.js';

/** `lacuna measure` in the list of commands. */
export const measureRow: CommandRow = {
  usage: 'measure [options] [source]',
  summary: 'tell how much space a copy will take',
  load: async () => (await import('./measure.js')).registerMeasure,
};
