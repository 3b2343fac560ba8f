import type { CommandRow } from '../../shell/index.js';

/** `lacuna help`, which is loaded only when somebody asks for it. */
export const helpRow: CommandRow = {
  usage: 'help [options] [command...]',
  summary: 'show the help of a command, or its man page',
  load: async () => (await import('./help.js')).registerHelp,
};
