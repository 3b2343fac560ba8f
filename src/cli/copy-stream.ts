/** `lacuna copy` with `-`: standard input as the source, or standard output as the target. */
import {
  type CopyOptions,
  copyFromStream,
  copyToStream,
  type StreamJob,
  type StreamReport,
} from '../copy/index.js';
import type { CopyFlags } from './copy-flags.js';
import { noteUnfinished } from './copy-notes.js';
import { pauseBySignal } from './copy-signals.js';
import { withBar } from './progress.js';
import type { Shell } from './shell.js';
import { noteMissing } from './source-flags.js';
import { formatBytes, formatDuration, formatRate } from './units.js';
import { noteWarnings } from './warnings.js';

/** What a path means a stream by. */
export const STREAM = '-';

/** Flags that a stream has a use for; what is moved in order has no plan, no threads and no digest. */
const BOTH_WAYS = ['requests', 'requestSize', 'flush', 'rate'] as const;
const FROM_STREAM: readonly (keyof CopyFlags)[] = [
  ...BOTH_WAYS,
  'outputFormat',
  'targetIsZero',
  'allowEmpty',
  'detectZeroes',
  'json',
];
const TO_STREAM: readonly (keyof CopyFlags)[] = [
  ...BOTH_WAYS,
  'format',
  'forceShare',
  'backingFolder',
  'rescue',
];

/**
 * Refuses what cannot be meant for a stream, before anything is opened.
 *
 * @throws TypeError
 */
export function checkStream(source: string, target: string, flags: CopyFlags, shell: Shell): void {
  if (source === STREAM && target === STREAM) {
    throw new TypeError('only one of source and target can be -');
  }
  if (source === STREAM) {
    checkFlags(flags, FROM_STREAM, 'read from standard input');
    return;
  }
  if (flags.json) {
    throw new TypeError('standard output holds the disk, so there is no room for --json');
  }
  checkFlags(flags, TO_STREAM, 'written to standard output');
  if (shell.isTerminal) {
    throw new TypeError('standard output is a terminal: send it into a file or a program');
  }
}

function checkFlags(given: CopyFlags, known: readonly string[], what: string): void {
  const odd = Object.keys(given).find((name) => !known.includes(name));
  if (odd === undefined) return;
  throw new TypeError(`${flagOf(odd)} is not for a disk that is ${what}: leave it out`);
}

/** Commander's way of naming them, the other way round. */
function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

type Ends = Pick<CopyOptions, 'signal' | 'source'> & { target: string };

/** Copies to standard output or from standard input; see {@link checkStream}. */
export async function copyStream(
  { source, target, signal, allowEmpty = false, ...options }: Ends & Partial<CopyOptions>,
  { json = false }: { json?: boolean },
  shell: Shell,
): Promise<void> {
  const report = await withBar('Copying', shell, (onProgress) => {
    const how = { ...options, signal, onProgress };
    const job =
      source === STREAM
        ? copyFromStream(shell.input(), target, { ...how, allowEmpty })
        : copyToStream(source, shell.output(), how);
    return steered(job, shell);
  });
  noteWarnings(report.warnings, shell);
  noteMissing(report, shell);
  // Standard output belongs to the bytes.
  if (target === STREAM) return;
  await shell.print(json ? jsonReport(report) : `${describe(report)}\n`);
}

async function steered(job: StreamJob, shell: Shell): Promise<StreamReport> {
  const letGo = pauseBySignal(job, shell);
  try {
    return await job;
  } catch (error) {
    noteUnfinished(job, error, shell);
    throw error;
  } finally {
    letGo();
  }
}

function jsonReport(report: StreamReport): string {
  return `${JSON.stringify({ type: 'report', ...report })}\n`;
}

function describe({ size, movedBytes, durationMs }: StreamReport): string {
  const rate = formatRate(size, durationMs);
  const time = formatDuration(durationMs);
  return `Copied a stream of ${formatBytes(size)}: ${formatBytes(movedBytes)} of data, in ${time} (${rate}).`;
}
