import type { Command } from 'commander';
import {
  applySnapshot,
  createSnapshot,
  deleteSnapshot,
  type ImageFormat,
  type SnapshotDetails,
} from '../../../block/index.js';
import { LacunaError } from '../../../errors/index.js';
import { FOLDER_FLAG, FOLDER_TEXT, openSource, type SourceFlags } from '../../device/index.js';
import {
  collect,
  FORMAT_FLAG,
  IMAGE_FORMAT_TEXT,
  noteWarnings,
  printable,
  SHARE_FLAG,
  SHARE_TEXT,
  type Shell,
} from '../../shell/index.js';
import { columns, formatBytes } from '../../text/index.js';

interface SnapshotFlags extends SourceFlags {
  format?: ImageFormat;
  list?: boolean;
  create?: string;
  apply?: string;
  delete?: string;
  quiet?: boolean;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna snapshot -l disk.qcow2
  lacuna snapshot -c before disk.qcow2
  lacuna snapshot -a before disk.qcow2           # the disk is what it was then; what it is now is lost
  lacuna snapshot -d before disk.qcow2
  lacuna snapshot --json disk.qcow2 | jq -r '.[].name'
  lacuna copy driver=qcow2,file.driver=file,file.filename=disk.qcow2,snapshot=before before.raw

A snapshot is named by its id or its name. Nobody else may have the image open while it is changed: of a running machine
QEMU takes snapshots. With -a the disk gets the size that it had then, and is dirty as a whole in bitmaps that record.
If a change is interrupted, the next who opens the image for writing, here or in QEMU, makes its refcounts right; for an
image of version 2 that is "lacuna check -r all".`;

/** Tells commander what `lacuna snapshot` takes, and what it does. */
export function registerSnapshot(command: Command, shell: Shell): void {
  command
    .description('Lists, takes, applies and deletes the internal snapshots of a qcow2 image.')
    .argument('<image>', 'the image')
    .option(FORMAT_FLAG, IMAGE_FORMAT_TEXT)
    .option(SHARE_FLAG, SHARE_TEXT)
    .option(FOLDER_FLAG, FOLDER_TEXT, collect)
    .option('-l, --list', 'list them (the default)')
    .option('-c, --create <name>', 'take a snapshot of the disk as it is now')
    .option('-a, --apply <snapshot>', 'make the disk what it was in a snapshot')
    .option('-d, --delete <snapshot>', 'delete a snapshot')
    .option('-q, --quiet', 'print nothing of what was done')
    .option('--json', 'print an array of them, or the one that was taken, applied or deleted')
    .addHelpText('after', EXAMPLES)
    .action((image: string, flags: SnapshotFlags) => snapshotCommand(image, flags, shell));
}

/** What can be done with a snapshot, and what was done then. */
const CHANGES = {
  create: { change: createSnapshot, done: 'Took' },
  apply: { change: applySnapshot, done: 'Applied' },
  delete: { change: deleteSnapshot, done: 'Deleted' },
} as const;

async function snapshotCommand(name: string, flags: SnapshotFlags, shell: Shell): Promise<void> {
  const said = (['list', 'create', 'apply', 'delete'] as const).filter(
    (verb) => flags[verb] !== undefined,
  );
  if (said.length > 1) {
    const words = said.map((verb) => `--${verb}`).join(' and ');
    throw new TypeError(`${words} are different things to do: say one of them`);
  }
  const [verb = 'list'] = said;
  if (verb === 'list') return listSnapshots(name, flags, shell);
  if (flags.forceShare || flags.backingFolder) {
    throw new TypeError('--force-share and --backing-folder are for the list of snapshots only');
  }
  const { change, done } = CHANGES[verb];
  const { format, quiet, json } = flags;
  const snapshot = await change(name, flags[verb]!, { format, signal: shell.signal });
  if (json) return shell.print(`${JSON.stringify(snapshot)}\n`);
  if (quiet) return;
  await shell.print(
    `${done} snapshot ${printable(snapshot.id)} (${printable(snapshot.name)}) of ${printable(name)}.\n`,
  );
}

async function listSnapshots(name: string, flags: SnapshotFlags, shell: Shell): Promise<void> {
  const device = await openSource(name, flags, { signal: shell.signal });
  try {
    noteWarnings(device.warnings, shell);
    const snapshots = device.details?.snapshots;
    if (snapshots === undefined) {
      const message = `${name} has no snapshots: only qcow2 images do. If it is one, say so (-f qcow2)`;
      throw new LacunaError('ERR_DEVICE_FORMAT', message, { device: name });
    }
    await shell.print(flags.json ? `${JSON.stringify(snapshots)}\n` : describe(snapshots));
  } finally {
    await device.close();
  }
}

function describe(snapshots: readonly SnapshotDetails[]): string {
  if (snapshots.length === 0) return 'It has no snapshots.\n';
  const rows = snapshots.map(({ id, name, size, date, stateSize }) => {
    return [printable(id), printable(name), formatBytes(size), formatBytes(stateSize), date];
  });
  return columns(['id', 'name', 'disk', 'state', 'date'], rows);
}
