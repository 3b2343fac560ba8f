/** `lacuna copy` with `-`: standard input as the source, or standard output as the target. */
import { filesOf, isBlockDevice, openDevice } from '../../../block/index.js';
import {
  type CopyOptions,
  copy,
  copyFromStream,
  copyToStream,
  type StreamReport,
} from '../../../copy/index.js';
import { LacunaError } from '../../../errors/index.js';
import { describeRefusal } from '../../../util/index.js';
import { noteMissing } from '../../device/index.js';
import { noteWarnings, type Shell } from '../../shell/index.js';
import { formatBytes, formatDuration, formatRate } from '../../text/index.js';
import { showCopy, showWriting, steerBySignals } from '../../view/index.js';
import type { CopyFlags } from './copy-flags.js';
import { noteUnfinished } from './copy-notes.js';

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
  'offset',
  'length',
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

type StreamOptions = Ends & Partial<CopyOptions>;

/** Copies to standard output or from standard input; see {@link checkStream}. */
export async function copyStream(
  options: StreamOptions,
  { json = false }: { json?: boolean },
  shell: Shell,
): Promise<void> {
  const { source, target } = options;
  const asFile = source === STREAM ? copyFromFile(options, shell) : copyToFile(options, shell);
  const report = (await asFile) ?? (await copyAsStream(options, shell));
  noteWarnings(report.warnings, shell);
  noteMissing(report, shell);
  // Standard output belongs to the bytes.
  if (target === STREAM) return;
  await shell.print(json ? jsonReport(report) : `${describe(report)}\n`);
}

async function copyAsStream(
  { source, target, signal: _, flush, allowEmpty = false, ...options }: StreamOptions,
  shell: Shell,
): Promise<StreamReport> {
  const job =
    source === STREAM
      ? copyFromStream(shell.input(), target, { ...options, allowEmpty, flush })
      : copyToStream(source, shell.output(), options);
  try {
    return await showWriting(job, 'Copying', shell);
  } catch (error) {
    const told = withCode(error);
    noteUnfinished(job, told, shell);
    if (shell.failureDocument) shell.failureDocument = { unfinished: job.unfinished };
    throw told;
  }
}

/** Where standard input is a file: what it does not hold need not be read. */
async function copyFromFile(
  { signal: _, ...options }: StreamOptions,
  shell: Shell,
): Promise<StreamReport | undefined> {
  const file = await shell.inherited('input');
  const device = await file?.openToRead();
  if (file === undefined || device === undefined) return undefined;
  await using source = device;
  // As of any stream, of which nobody knows what in it is zero.
  const report = await followed({ detectZeroes: 'unmap', ...options, source }, shell);
  file.moveOn(source.size);
  return report;
}

/** Where standard output is a file: what is zero need not be written. */
async function copyToFile(
  { sourceFormat: format, forceShare, signal, source: named, ...options }: StreamOptions,
  shell: Shell,
): Promise<StreamReport | undefined> {
  const file = await shell.inherited('output');
  if (file === undefined || isBlockDevice(named)) return undefined;
  await using source = await openDevice(named, { format, forceShare, signal });
  const path = file.pathAmong(filesOf(source.description));
  if (path !== undefined) throw isSource(path);
  const device = await file.openToWrite(source.size);
  if (device === undefined) return undefined;
  await using target = device;
  try {
    const report = await followed({ ...options, source, target }, shell);
    file.moveOn(source.size);
    return report;
  } catch (error) {
    file.undo();
    throw error;
  }
}

/** A copy between devices, told of as one of a stream. */
async function followed(options: CopyOptions, shell: Shell): Promise<StreamReport> {
  const job = copy(options);
  const stopSteering = steerBySignals(job, shell);
  try {
    const report = await showCopy(job, shell);
    const { size, movedBytes, zeroedBytes, skippedBytes, durationMs, missing, warnings } = report;
    return { size, movedBytes, zeroedBytes, skippedBytes, durationMs, missing, warnings };
  } catch (error) {
    job.stop();
    await job.catch(() => {});
    noteUnfinished(job, error, shell);
    throw error;
  } finally {
    stopSteering();
  }
}

function isSource(path: string): LacunaError {
  const message = `standard output goes to ${path}, which is read: name another file as the target`;
  return new LacunaError('ERR_COPY_MISMATCH', message, { device: path });
}

/** Standard input that cannot be read, such as a folder: Node's error has no code of ours. */
function withCode(error: unknown): unknown {
  const { syscall, code: errno } = error as NodeJS.ErrnoException;
  if (error instanceof LacunaError || syscall !== 'read' || errno === undefined) return error;
  const message = describeRefusal('Cannot read standard input', errno);
  return new LacunaError('ERR_DEVICE_IO', message, { cause: error, errno });
}

function jsonReport(report: StreamReport): string {
  return `${JSON.stringify({ type: 'report', ...report })}\n`;
}

function describe({ size, movedBytes, durationMs }: StreamReport): string {
  const rate = formatRate(size, durationMs);
  const time = formatDuration(durationMs);
  return `Copied a stream of ${formatBytes(size)}: ${formatBytes(movedBytes)} of data, in ${time} (${rate}).`;
}
