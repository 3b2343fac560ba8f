/** `lacuna copy` with `-`: standard input as the source, or standard output as the target. */
import {
  type CopyOptions,
  copyFromStream,
  copyToStream,
  type StreamJob,
  type StreamReport,
} from '../copy/index.js';
import { pauseBySignal } from './copy-signals.js';
import { withBar } from './progress.js';
import type { Shell } from './shell.js';
import { formatBytes, formatDuration, formatRate } from './units.js';
import { noteWarnings } from './warnings.js';

/** What a path means a stream by. */
export const STREAM = '-';

/** Options that a stream has a use for; what is read in order has no plan, no threads and no digest. */
const FROM_STREAM = [
  'targetFormat',
  'targetIsZero',
  'detectZeroes',
  'requests',
  'requestSize',
  'flush',
  'rate',
] as const;
const TO_STREAM = [
  'sourceFormat',
  'forceShare',
  'requests',
  'requestSize',
  'flush',
  'rate',
] as const;

type Ends = Pick<CopyOptions, 'signal' | 'source'> & { target: string };

/** Copies to standard output or from standard input. */
export async function copyStream(
  { source, target, signal, ...options }: Ends & Partial<CopyOptions>,
  { json = false }: { json?: boolean },
  shell: Shell,
): Promise<void> {
  if (source === STREAM && target === STREAM) {
    throw new TypeError('only one of source and target can be -');
  }
  if (source === STREAM) {
    checkOptions(options, FROM_STREAM, 'read from standard input');
    const report = await withBar('Copying', shell, (show) =>
      steered(
        copyFromStream(shell.input(), target, { ...options, signal, onProgress: show }),
        shell,
      ),
    );
    note(report, shell);
    await shell.print(json ? jsonReport(report) : `${describe(report)}\n`);
    return;
  }
  checkOptions(options, TO_STREAM, 'written to standard output');
  if (json) throw new TypeError('standard output holds the disk, so there is no room for --json');
  if (shell.isTerminal) {
    throw new TypeError('standard output is a terminal: send it into a file or a program');
  }
  const report = await withBar('Copying', shell, (show) =>
    steered(copyToStream(source, shell.output(), { ...options, signal, onProgress: show }), shell),
  );
  note(report, shell);
}

async function steered(job: StreamJob, shell: Shell): Promise<StreamReport> {
  const letGo = pauseBySignal(job, shell);
  try {
    return await job;
  } finally {
    letGo();
  }
}

function checkOptions(given: object, known: readonly string[], what: string): void {
  const odd = Object.keys(given).find((name) => !known.includes(name));
  if (odd === undefined) return;
  throw new TypeError(`${flagOf(odd)} makes no sense for a disk that is ${what}`);
}

/** Options whose flags have other names. */
const FLAGS: Readonly<Record<string, string>> = {
  sourceFormat: 'format',
  targetFormat: 'output-format',
  image: 'options',
  carryBitmaps: 'bitmaps',
  unmap: 'allocated',
  retry: 'retries',
};

function flagOf(option: string): string {
  return `--${FLAGS[option] ?? option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

function note(report: StreamReport, shell: Shell): void {
  noteWarnings(report.warnings, shell);
}

function jsonReport(report: StreamReport): string {
  return `${JSON.stringify({ type: 'report', ...report })}\n`;
}

function describe({ size, movedBytes, durationMs }: StreamReport): string {
  const rate = formatRate(size, durationMs);
  const time = formatDuration(durationMs);
  return `Copied a stream of ${formatBytes(size)}: ${formatBytes(movedBytes)} of data, in ${time} (${rate}).`;
}
