import { BackupAccess, type Control, isId, nodeNamed, refusal } from '../core/index.js';
import {
  about,
  type Command,
  command,
  flag,
  list,
  optional,
  struct,
  text,
  word,
} from '../schema/index.js';

const accessedDisk = struct('BackupAccessDisk', {
  node: text,
  export: about(text, 'what NBD clients ask for'),
  mode: word('BackupAccessMode', 'full', 'incremental'),
  bitmap: optional(text),
});

/** Disks as they are at one point in time, for backup programs that speak NBD. */
export const backupAccess: readonly Command<Control>[] = [
  command({
    name: 'backup-access-setup',
    isOurs: true,
    about:
      'Serves nodes as they are now, all of one moment, while they are written: each as the export `ID.NODE`. With a bitmap, what was dirty in it is served too, and it goes on for the next backup.',
    args: {
      id: about(text, 'what the access is called'),
      nodes: about(list(text), 'the nodes'),
      bitmap: about(
        optional(text),
        'of those that have it, what is dirty is taken; the others get it, and are taken in full',
      ),
      persistent: about(optional(flag), 'bitmaps that are added are kept in the images'),
    },
    returns: struct('BackupAccess', { disks: list(accessedDisk) }),
    run: setUp,
  }),
  command({
    name: 'backup-access-teardown',
    isOurs: true,
    about:
      'Ends an access. With `finish` the backup counts, and its bitmap tells of what was written since its start; with `reclaim` it does not, and the bitmap tells of what was dirty before too.',
    args: { id: text, outcome: word('BackupAccessOutcome', 'finish', 'reclaim') },
    run: async ({ accesses }: Control, { id, outcome }) => {
      const access = accesses.get(id);
      if (access === undefined) throw refusal(`Backup access '${id}' is not found`);
      await access.end(outcome, id);
      accesses.delete(id);
    },
  }),
];

interface Setup {
  readonly id: string;
  readonly nodes: readonly string[];
  readonly bitmap?: string;
  readonly persistent?: boolean;
}

async function setUp(control: Control, { id, nodes, bitmap, persistent = false }: Setup) {
  const { graph, accesses, exports } = control;
  if (!isId(id)) throw refusal(`Invalid access ID '${id}'`);
  if (accesses.has(id)) throw refusal(`Backup access '${id}' is there already`);
  exports.checkRunning();
  for (const name of nodes) nodeNamed(graph, name);
  const backup = await graph.openBackup({
    nodes,
    persistent,
    ...(bitmap !== undefined && { bitmap }),
  });
  const access = new BackupAccess(backup);
  if (accesses.has(id)) {
    await access.reclaim();
    throw refusal(`Backup access '${id}' is there already`);
  }
  accesses.set(id, access);
  try {
    await access.serve(exports, id, bitmap);
  } catch (error) {
    accesses.delete(id);
    throw error;
  }
  return { disks: access.disks };
}
