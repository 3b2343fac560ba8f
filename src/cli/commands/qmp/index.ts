import type { CommandRow } from '../../shell/index.js';

/** `lacuna qmp` in the list of commands. */
export const qmpRow: CommandRow = {
  usage: 'qmp [options] <socket> <command> [arguments...]',
  summary: 'send a command to a daemon, or to a QEMU',
  load: async () => (await import('./qmp.js')).registerQmp,
};
