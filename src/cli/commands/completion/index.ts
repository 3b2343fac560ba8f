import type { CommandRow } from '../../shell/index.js';

/** `lacuna completion`, which is loaded only when somebody asks for it. */
export const completionRow: CommandRow = {
  usage: 'completion <shell>',
  summary: 'print what completes command lines in bash, zsh or fish',
  needsAll: true,
  load: async () => (await import('./completion.js')).registerCompletion,
};
