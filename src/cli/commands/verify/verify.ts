import { type Command, InvalidArgumentError } from 'commander';
import type { VerifyReport } from '../../../repository/index.js';
import { counted } from '../../../util/index.js';
import { addOutputFlags, parseBytes, parseCount } from '../../device/index.js';
import { Exit, noteWarnings, printable, type Shell } from '../../shell/index.js';
import { formatBytes, formatDuration } from '../../text/index.js';
import { showRepositoryJob } from '../../view/index.js';

interface VerifyFlags {
  machine?: string;
  dataSubset?: number;
  rate?: number;
  threads?: number;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna verify /backup
  lacuna verify --data-subset 5% --machine web /backup

Manifests, parents and digests are always checked; of the bytes of images and disks a share with --data-subset, each
time in other places. Exit codes: 0 all is sound, 1 something is damaged or the command failed, 2 misuse.`;

/** Tells commander what `lacuna verify` takes, and what it does. */
export function registerVerify(command: Command, shell: Shell): void {
  command
    .description('Reads a repository, and tells what is not what it was when it was written.')
    .argument('<repository>', 'the repository')
    .option('--machine <name>', 'only this machine')
    .option(
      '--data-subset <share>',
      'read only this share of the data, such as 5% or 1/12',
      parseShare,
    )
    .option('--rate <size>', 'bytes per second that are read at most', parseBytes)
    .option('--threads <n>', 'worker threads; 0 does without', parseCount(0))
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action((path: string, flags: VerifyFlags) => verifyCommand(path, flags, shell));
  addOutputFlags(command, shell);
}

function parseShare(text: string): number {
  const [, percent, part, whole] = /^(?:(\d+(?:\.\d+)?)%|(\d+)\/(\d+))$/.exec(text) ?? [];
  const share = percent === undefined ? Number(part) / Number(whole) : Number(percent) / 100;
  if (share > 0 && share <= 1) return share;
  throw new InvalidArgumentError('Give a share such as 5% or 1/12.');
}

async function verifyCommand(path: string, flags: VerifyFlags, shell: Shell): Promise<void> {
  const { machine, dataSubset, rate, threads, json } = flags;
  const { Repository } = await import('../../../repository/index.js');
  const job = Repository.open(path).verify({
    ...(machine !== undefined && { machine }),
    ...(dataSubset !== undefined && { dataSubset }),
    ...(threads !== undefined && { threads }),
    rate,
  });
  const report = await showRepositoryJob(job, shell);
  noteWarnings(report.warnings, shell);
  if (!report.ok) shell.exitCode = Exit.failed;
  await shell.print(json ? `${JSON.stringify(report)}\n` : describeReport(report, dataSubset));
}

function describeReport(
  { points, problems, readBytes, unnamed, durationMs }: VerifyReport,
  share = 1,
): string {
  const lines = problems.map(({ message }) => `${printable(message)}\n`);
  const bad = points.filter(({ ok }) => !ok).map(({ machine, number }) => `${machine}/${number}`);
  const good = points.length - bad.length;
  const effort = `${formatBytes(readBytes)} read in ${formatDuration(durationMs)}`;
  const left =
    unnamed.length === 0
      ? ''
      : ` The next backup removes ${counted(unnamed.length, 'file')} that no point has.`;
  const sound = `${good} of ${counted(points.length, 'restore point')} ${good === 1 ? 'is' : 'are'} sound${share < 1 ? ' as far as was read' : ''} (${effort}).${left}\n`;
  if (bad.length === 0) return lines.join('') + sound;
  return `${lines.join('')}${sound}Damaged, or over a damaged point: ${bad.join(', ')}.\n`;
}
