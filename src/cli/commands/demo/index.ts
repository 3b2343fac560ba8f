import type { CommandRow } from '../../shell/index.js';

/** `lacuna demo` in the list of commands. */
export const demoRow: CommandRow = {
  usage: 'demo [options]',
  summary: 'show on a disk made for it what this is about',
  load: async () => (await import('./demo.js')).registerDemo,
};
