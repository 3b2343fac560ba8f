import type { Command } from 'commander';
import { type DeviceSource, type DigestOptions, type DigestReport, digest } from '../copy/index.js';
import { FOLDER_FLAG, FOLDER_TEXT, withFolders } from './backing-folders.js';
import { collect, FORMAT_FLAG, FORMAT_TEXT, SHARE_FLAG, SHARE_TEXT } from './flags.js';
import { ProgressBar } from './progress.js';
import type { Shell } from './shell.js';
import { parseCount } from './units.js';
import { noteWarnings } from './warnings.js';

interface DigestFlags {
  format?: DigestOptions['sourceFormat'];
  forceShare?: boolean;
  backingFolder?: string[];
  threads?: number;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna digest disk.raw
  lacuna digest --json nbd://host/vda

Zeroes are not read, and not what sha256sum prints: docs/digest.md says how it is made.`;

/** Adds `lacuna digest`. */
export function registerDigest(program: Command, shell: Shell): void {
  program
    .command('digest')
    .summary('name what a device holds by one hash')
    .description('Prints the SHA-256 of a tree over all that a device holds, and reads only data.')
    .argument('<source>', 'the device to read')
    .option(FORMAT_FLAG, FORMAT_TEXT)
    .option(SHARE_FLAG, SHARE_TEXT)
    .option(FOLDER_FLAG, FOLDER_TEXT, collect)
    .option('--threads <n>', 'worker threads; 0 does without', parseCount(0))
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action((source: string, flags: DigestFlags) => digestCommand(source, flags, shell));
}

async function digestCommand(source: string, flags: DigestFlags, shell: Shell): Promise<void> {
  const { format: sourceFormat, forceShare, threads } = flags;
  const report = await digestWithBar(
    withFolders(source, sourceFormat, flags.backingFolder),
    {
      signal: shell.signal,
      forceShare,
      ...(sourceFormat !== undefined && { sourceFormat }),
      ...(threads !== undefined && { threads }),
    },
    shell,
  );
  noteWarnings(report.warnings, shell);
  const text = flags.json ? JSON.stringify(report) : `${report.digest}  ${source}`;
  await shell.print(`${text}\n`);
}

async function digestWithBar(
  source: DeviceSource,
  options: DigestOptions,
  shell: Shell,
): Promise<DigestReport> {
  const bar = await ProgressBar.start(shell);
  const started = performance.now();
  try {
    return await digest(source, {
      ...options,
      onProgress: ({ readBytes, totalBytes }) => {
        const elapsedMs = performance.now() - started;
        bar.show({ phase: 'Reading', totalBytes, doneBytes: readBytes, elapsedMs });
      },
    });
  } finally {
    bar.stop();
  }
}
