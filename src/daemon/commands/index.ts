import type { Control } from '../core/index.js';
import {
  anything,
  type Command,
  command,
  introspect,
  list,
  struct,
  text,
} from '../schema/index.js';
import { backupAccess } from './backup-access.js';
import { bitmaps } from './bitmaps.js';
import { creations } from './create.js';
import { EVENTS } from './events.js';
import { exports_ } from './exports.js';
import { general } from './general.js';
import { jobs } from './jobs.js';
import { machine } from './machine.js';
import { nodes } from './nodes.js';
import { objects } from './objects.js';
import { reopenings } from './reopen.js';
import { snapshots } from './snapshot.js';
import { transactions } from './transaction.js';

export { EVENTS } from './events.js';
export {
  addExport,
  exportOptions,
  NBD_SERVER,
  startServer,
} from './exports.js';
export { addNode } from './nodes.js';
export { addObject, objectOptions } from './objects.js';

/** What tells of the commands. */
const self: readonly Command<Control>[] = [
  command({
    name: 'query-commands',
    about: 'Lists all commands.',
    returns: list(struct('CommandInfo', { name: text })),
    run: () => [
      ...Object.values(GROUPS).flatMap((group) => group.map(({ name }) => ({ name }))),
      { name: 'qmp_capabilities' },
    ],
  }),
  command({
    name: 'query-qmp-schema',
    about: 'The commands and events with the types of their arguments and answers.',
    returns: list(anything),
    run: () => introspect(COMMANDS, EVENTS),
  }),
];

/** All commands, in groups with headings. To remove one, remove its file and its line here. */
export const GROUPS: Readonly<Record<string, readonly Command<Control>[]>> = {
  'The daemon': [...general, ...self],
  Nodes: [...nodes, ...creations, ...reopenings, ...snapshots, ...machine],
  Exports: exports_,
  Objects: objects,
  Bitmaps: bitmaps,
  Transactions: transactions,
  Jobs: jobs,
  'Views for backup programs': backupAccess,
};

export const COMMANDS: readonly Command<Control>[] = Object.values(GROUPS).flat();
