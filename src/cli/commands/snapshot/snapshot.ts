import type { Command } from 'commander';
import type { ImageFormat, SnapshotDetails } from '../../../block/index.js';
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
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna snapshot -l disk.qcow2
  lacuna snapshot --json disk.qcow2 | jq -r '.[].name'
  lacuna copy driver=qcow2,file.driver=file,file.filename=disk.qcow2,snapshot=before before.raw`;

/** Tells commander what `lacuna snapshot` takes, and what it does. */
export function registerSnapshot(command: Command, shell: Shell): void {
  command
    .description('Lists the internal snapshots that a qcow2 image keeps.')
    .argument('<image>', 'the image to look at')
    .option(FORMAT_FLAG, IMAGE_FORMAT_TEXT)
    .option(SHARE_FLAG, SHARE_TEXT)
    .option(FOLDER_FLAG, FOLDER_TEXT, collect)
    .option('-l, --list', 'list them, which is done anyway')
    .option('--json', 'print an array of them')
    .addHelpText('after', EXAMPLES)
    .action((image: string, flags: SnapshotFlags) => snapshotCommand(image, flags, shell));
}

async function snapshotCommand(name: string, flags: SnapshotFlags, shell: Shell): Promise<void> {
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
