import type { Command } from 'commander';
import { type CommitOptions, type CommitReport, commit } from '../copy/index.js';
import { describeCopy } from './copy.js';
import { FORMAT_FLAG, IMAGE_FORMAT_TEXT } from './flags.js';
import { withBar } from './progress.js';
import type { Shell } from './shell.js';

interface CommitFlags {
  format?: CommitOptions['format'];
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna commit overlay.qcow2

The backing file is the whole disk afterwards, with the bitmaps of both. The image on top is left as it is (as by
"qemu-img commit -d"), and may be removed. Nobody may use either of them meanwhile; other images over the same backing
file are damaged by this.`;

/** Adds `lacuna commit`. */
export function registerCommit(program: Command, shell: Shell): void {
  program
    .command('commit')
    .summary('put what an image holds into its backing file')
    .description('Puts what an image holds into its backing file, bitmaps included.')
    .argument('<top>', 'the image on top')
    .option(FORMAT_FLAG, IMAGE_FORMAT_TEXT)
    .option('--json', 'print the report as JSON')
    .addHelpText('after', EXAMPLES)
    .action((top: string, flags: CommitFlags) => commitCommand(top, flags, shell));
}

async function commitCommand(top: string, flags: CommitFlags, shell: Shell): Promise<void> {
  const options = { top, format: flags.format, signal: shell.signal };
  const report = await withBar('Committing', shell, (onProgress) =>
    commit({ ...options, onProgress }),
  );
  for (const warning of report.warnings) shell.note(`lacuna: warning: ${warning}\n`);
  await shell.print(flags.json ? `${JSON.stringify(report)}\n` : describeCommit(report));
}

function describeCommit(report: CommitReport): string {
  const { base, bitmaps } = report;
  const carried = bitmaps.length === 0 ? '' : `Bitmaps carried along: ${bitmaps.join(', ')}.\n`;
  return `${describeCopy(report)}\n${base} holds all of it now.\n${carried}`;
}
