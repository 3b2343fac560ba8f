import { type Command, Option } from 'commander';
import { type RebaseOptions, rebase } from '../../../chain/index.js';
import { addOutputFlags, FOLDER_FLAG, FOLDER_TEXT, withFolders } from '../../device/index.js';
import { collect, FORMAT_FLAG, IMAGE_FORMAT_TEXT, type Shell } from '../../shell/index.js';
import { formatBytes } from '../../text/index.js';
import { showWriting } from '../../view/index.js';

interface RebaseFlags {
  format?: RebaseOptions['format'];
  backingFolder?: string[];
  backing: string;
  backingFormat?: string;
  unsafe?: boolean;
  snapshotsToo?: boolean;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna rebase overlay.qcow2 -b base.qcow2 -F qcow2
  lacuna rebase overlay.qcow2 -b ''
  lacuna rebase overlay.qcow2 -b moved/base.raw -F raw --unsafe

The disk shows the same afterwards: what only the old backing file showed is written into the image. With --unsafe only
the name changes. A relative name counts from the folder of the image. The bitmaps of the image stay as they are; those
of images that are not below it any more stay with these.`;

/** As QEMU names them; a name that it does not know would make the image useless. */
const FORMATS = ['raw', 'qcow2', 'qcow', 'qed', 'vmdk', 'vdi', 'vpc', 'vhdx', 'parallels'];

/** Tells commander what `lacuna rebase` takes, and what it does. */
export function registerRebase(command: Command, shell: Shell): void {
  command
    .description(
      'Gives an image another backing file, or none, without changing what its disk shows.',
    )
    .argument('<image>', 'the image on top')
    .option(FORMAT_FLAG, IMAGE_FORMAT_TEXT)
    .option(FOLDER_FLAG, FOLDER_TEXT, collect)
    .requiredOption('-b, --backing <file>', 'the new backing file; empty for none')
    .addOption(
      new Option(
        '-F, --backing-format <format>',
        'its format, which is never guessed; what is neither raw nor qcow2 only with --unsafe',
      ).choices(FORMATS),
    )
    .option('-u, --unsafe', 'the new backing file is known to show the same as the old one')
    .option('--snapshots-too', 'with --unsafe: so do the internal snapshots of the image')
    .option('--json', 'print the report as JSON')
    .addHelpText('after', EXAMPLES)
    .action((image: string, flags: RebaseFlags) => rebaseCommand(image, flags, shell));
  addOutputFlags(command, shell);
}

async function rebaseCommand(name: string, flags: RebaseFlags, shell: Shell): Promise<void> {
  const { format, backingFolder, unsafe, snapshotsToo, json } = flags;
  const image = withFolders(name, format, backingFolder);
  if (snapshotsToo && !unsafe) {
    throw new TypeError(
      '--snapshots-too is for --unsafe: without it, snapshots are looked at anyway',
    );
  }
  const backing = backingOf(flags);
  const options = { image, format, unsafe, snapshotsToo, backing };
  const report = await showWriting(rebase(options), 'Rebasing', shell);
  const told = unsafe
    ? 'Changed the name of the backing file, and nothing else.\n'
    : `Wrote ${formatBytes(report.writtenBytes)} that only the old backing file showed.\n`;
  await shell.print(json ? `${JSON.stringify(report)}\n` : told);
}

function backingOf({ backing: filename, backingFormat }: RebaseFlags): RebaseOptions['backing'] {
  if (filename === '') return null;
  if (backingFormat !== undefined) return { filename, format: backingFormat };
  throw new TypeError('say the format of the new backing file with -F: it is never guessed');
}
