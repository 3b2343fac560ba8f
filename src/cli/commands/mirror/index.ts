import type { CommandRow } from '../../shell/index.js';

/** `lacuna mirror` in the list of commands. */
export const mirrorRow: CommandRow = {
  usage: 'mirror [options] <target>',
  summary: 'keep a replica of a disk of a running machine in step',
  load: async () => (await import('./mirror.js')).registerMirror,
};
