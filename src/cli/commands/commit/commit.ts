import type { Command } from 'commander';
import { type CommitOptions, type CommitReport, commit } from '../../../chain/index.js';
import { addOutputFlags, FOLDER_FLAG, FOLDER_TEXT, withFolders } from '../../device/index.js';
import {
  collect,
  FORMAT_FLAG,
  IMAGE_FORMAT_TEXT,
  noteWarnings,
  printable,
  type Shell,
} from '../../shell/index.js';
import { describeCopy, showWriting } from '../../view/index.js';

interface CommitFlags {
  format?: CommitOptions['format'];
  backingFolder?: string[];
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna commit overlay.qcow2

The backing file is the whole disk afterwards, with the bitmaps of both. The image on top is left as it is (as by
"qemu-img commit -d"), and may be removed. Nobody may use either of them meanwhile; other images over the same backing
file are damaged by this.`;

/** Tells commander what `lacuna commit` takes, and what it does. */
export function registerCommit(command: Command, shell: Shell): void {
  command
    .description('Puts what an image holds into its backing file, bitmaps included.')
    .argument('<top>', 'the image on top')
    .option(FORMAT_FLAG, IMAGE_FORMAT_TEXT)
    .option(FOLDER_FLAG, FOLDER_TEXT, collect)
    .option('--json', 'print the report as JSON')
    .addHelpText('after', EXAMPLES)
    .action((top: string, flags: CommitFlags) => commitCommand(top, flags, shell));
  addOutputFlags(command, shell);
}

async function commitCommand(name: string, flags: CommitFlags, shell: Shell): Promise<void> {
  const { format, backingFolder } = flags;
  const top = withFolders(name, format, backingFolder);
  const report = await showWriting(commit({ top, format }), 'Committing', shell);
  noteWarnings(report.warnings, shell);
  await shell.print(flags.json ? `${JSON.stringify(report)}\n` : describeCommit(report));
}

function describeCommit(report: CommitReport): string {
  const { base, bitmaps } = report;
  const carried =
    bitmaps.length === 0 ? '' : `Bitmaps carried along: ${bitmaps.map(printable).join(', ')}.\n`;
  return `${describeCopy(report)}\n${printable(base)} holds all of it now.\n${carried}`;
}
