import type { CommandRow } from '../../shell/index.js';

/** `lacuna daemon` in the list of commands. */
export const daemonRow: CommandRow = {
  usage: 'daemon [options]',
  summary: 'run nodes, jobs and exports, steered over QMP',
  load: async () => (await import('./daemon.js')).registerDaemon,
};
