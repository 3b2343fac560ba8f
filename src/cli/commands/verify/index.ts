import type { CommandRow } from '../../shell/index.js';

/** `lacuna verify` in the list of commands. */
export const verifyRow: CommandRow = {
  usage: 'verify [options] <repository>',
  summary: 'check that restore points are what they were',
  load: async () => (await import('./verify.js')).registerVerify,
};
