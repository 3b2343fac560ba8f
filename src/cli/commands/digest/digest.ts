import type { Command } from 'commander';
import { type DigestReport, digest } from '../../../copy/index.js';
import {
  addOutputFlags,
  addRangeFlags,
  addRescueFlag,
  addSourceFlags,
  noteMissing,
  parseCount,
  readDigest,
  type SourceFlags,
  type StoredDigest,
  sourceOf,
} from '../../device/index.js';
import { Exit, noteWarnings, printable, type Shell } from '../../shell/index.js';
import { showReading } from '../../view/index.js';

interface DigestFlags extends SourceFlags {
  threads?: number;
  check?: string;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna digest disk.raw
  lacuna digest --json nbd://host/vda
  lacuna digest --offset 1M --length 512M disk.raw
  lacuna copy --digest-file disk.digest nbd://host/vda disk.raw
  lacuna digest --check disk.digest disk.raw

Zeroes are not read, and not what sha256sum prints: docs/digest.md says how it is made. With --check the exit
codes are 0 the same, 1 different, 2 or more an error.`;

/** Tells commander what `lacuna digest` takes, and what it does. */
export function registerDigest(command: Command, shell: Shell): void {
  command
    .description('Prints the SHA-256 of a tree over all that a device holds, and reads only data.')
    .argument('<source>', 'the device to read');
  addRangeFlags(addRescueFlag(addSourceFlags(command)), 'read')
    .option('--threads <n>', 'worker threads; 0 does without', parseCount(0))
    .option('--check <file>', 'check whether it is the digest in this file')
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action((source: string, flags: DigestFlags) => digestCommand(source, flags, shell));
  addOutputFlags(command, shell);
}

async function digestCommand(source: string, flags: DigestFlags, shell: Shell): Promise<void> {
  const { format: sourceFormat, forceShare, threads, check } = flags;
  // 1 is the answer "different" here, as it is of compare.
  if (check !== undefined) shell.failureCode = Exit.misuse;
  const wanted = check === undefined ? undefined : await readDigest(check);
  const options = { signal: shell.signal, forceShare, sourceFormat, threads };
  const job = digest(sourceOf(source, flags), options);
  const report = await showReading(job, 'Reading', shell);
  noteWarnings(report.warnings, shell);
  noteMissing(report, shell);
  if (wanted !== undefined) return await tellWhether(wanted, report, flags, shell);
  const text = flags.json ? JSON.stringify(report) : `${report.digest}  ${printable(source)}`;
  await shell.print(`${text}\n`);
}

async function tellWhether(
  wanted: StoredDigest,
  report: DigestReport,
  { json, check }: DigestFlags,
  shell: Shell,
): Promise<void> {
  const same = report.digest === wanted.digest;
  const sizes = report.size === wanted.size ? '' : ` of ${report.size} bytes, not ${wanted.size}`;
  const told = same
    ? `The same: ${report.digest}\n`
    : `Different: it is ${report.digest}${sizes}, and ${printable(check ?? '')} says ${wanted.digest}\n`;
  await shell.print(json ? `${JSON.stringify({ ...report, same, wanted })}\n` : told);
  shell.exitCode = same ? Exit.done : Exit.failed;
}
