import type { CommandRow } from '../../shell/index.js';

/** `lacuna serve` in the list of commands. */
export const serveRow: CommandRow = {
  usage: 'serve [options] <source> [point]',
  summary: 'let NBD clients use a device',
  load: async () => (await import('./serve.js')).registerServe,
};
