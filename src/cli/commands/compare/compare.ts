import type { Command } from 'commander';
import type { CompareOptions, CompareReport } from '../../../copy/index.js';
import {
  addOutputFlags,
  addRangeFlags,
  FOLDER_FLAG,
  FOLDER_TEXT,
  parseCount,
  partOf,
  type RangeFlags,
  withFolders,
} from '../../device/index.js';
import {
  collect,
  Exit,
  noteWarnings,
  SHARE_FLAG,
  SHARE_TEXT,
  type Shell,
  setFormatFlag,
} from '../../shell/index.js';
import { formatBytes } from '../../text/index.js';
import { compareWithBar } from '../../view/index.js';

interface CompareFlags extends RangeFlags {
  format?: CompareOptions['aFormat'];
  secondFormat?: CompareOptions['bFormat'];
  strict?: boolean;
  forceShare?: boolean;
  backingFolder?: string[];
  threads?: number;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna compare disk.raw copy.raw
  lacuna compare --json disk.raw nbd://host/vda
  lacuna compare --offset 1M --length 512M disk.raw copy.raw

Exit codes: 0 equal, 1 different, 2 or more an error.`;

/** Tells commander what `lacuna compare` takes, and what it does. */
export function registerCompare(command: Command, shell: Shell): void {
  command
    .description('Tells whether two devices hold the same bytes, and where they first differ.')
    .argument('<a>', 'one device')
    .argument('<b>', 'the other');
  addRangeFlags(command, 'compare both')
    .option(
      '-f, --format <format>',
      'image format of the first, raw or qcow2 (default: from its name)',
    )
    .option('-F, --second-format <format>', 'image format of the second (default: from its name)')
    .option(SHARE_FLAG, SHARE_TEXT)
    .option(FOLDER_FLAG, FOLDER_TEXT, collect)
    .option('--strict', 'devices of different sizes are different')
    .option('--threads <n>', 'worker threads; 0 does without', parseCount(0))
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action((a: string, b: string, flags: CompareFlags) => {
      setFormatFlag(shell, '-F', b, a);
      return compareCommand(optionsOf(a, b, flags, shell), flags, shell);
    });
  addOutputFlags(command, shell);
}

function optionsOf(a: string, b: string, flags: CompareFlags, shell: Shell): CompareOptions {
  const { format: aFormat, secondFormat: bFormat, strict = false, forceShare, threads } = flags;
  return {
    a: partOf(withFolders(a, aFormat, flags.backingFolder), aFormat, flags),
    b: partOf(withFolders(b, bFormat, flags.backingFolder), bFormat, flags),
    strict,
    forceShare,
    signal: shell.signal,
    ...(aFormat !== undefined && { aFormat }),
    ...(bFormat !== undefined && { bFormat }),
    ...(threads !== undefined && { threads }),
  };
}

async function compareCommand(
  options: CompareOptions,
  flags: CompareFlags,
  shell: Shell,
): Promise<void> {
  // 1 is the answer "different" here, so an error must be told by another code.
  shell.failureCode = Exit.misuse;
  const report = await compareWithBar(options, shell);
  noteWarnings(report.warnings, shell);
  // As a place of the whole.
  const { offset: start = 0 } = flags;
  const { offset } = report;
  const placed = offset === undefined ? report : { ...report, offset: offset + start };
  await shell.print(flags.json ? `${JSON.stringify(placed)}\n` : `${describeComparison(placed)}\n`);
  shell.exitCode = report.equal ? Exit.done : Exit.failed;
}

/** What a comparison found, in one sentence. */
function describeComparison(report: CompareReport): string {
  const { equal, offset, comparedBytes, skippedBytes } = report;
  const amount = `compared ${formatBytes(comparedBytes)}, ${formatBytes(skippedBytes)} known to be zero on both sides`;
  if (equal) return `Equal: ${amount}.`;
  return offset === undefined
    ? 'Different.'
    : `Different: the first difference is at byte ${offset}.`;
}
