import type { Control } from '../core/index.js';
import { type Command, command, integer, struct, text } from '../schema/index.js';

const versionTriple = struct('VersionTriple', { major: integer, minor: integer, micro: integer });

/** What is about the daemon itself. */
export const general: readonly Command<Control>[] = [
  command({
    name: 'query-version',
    about: 'The version of QEMU whose commands these are like; `package` says which program it is.',
    returns: struct('VersionInfo', { qemu: versionTriple, package: text }),
    run: ({ version }: Control) => {
      const { package: added, ...qemu } = version;
      return { qemu, package: added };
    },
  }),
  command({
    name: 'quit',
    about:
      'Ends the daemon: jobs are cancelled, requests in flight end, and bitmaps are stored. The answer comes first.',
    run: ({ quit }: Control) => quit(),
  }),
];
