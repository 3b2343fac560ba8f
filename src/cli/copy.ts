import { type Command, Option } from 'commander';
import {
  type CopyJob,
  type CopyOptions,
  type CopyProgress,
  type CopyReport,
  copy,
} from '../copy/index.js';
import { LacunaError } from '../errors/index.js';
import { steerBySignals } from './copy-signals.js';
import { copyStream, STREAM } from './copy-stream.js';
import { dryRun } from './dry-run.js';
import { Exit } from './exit.js';
import { collect, FORMAT_FLAG, FORMAT_TEXT, SHARE_FLAG, SHARE_TEXT } from './flags.js';
import { parseImageOptions } from './image-options.js';
import { ProgressBar } from './progress.js';
import type { Shell } from './shell.js';
import { formatBytes, formatDuration, formatRate, parseBytes, parseCount } from './units.js';

interface CopyFlags {
  format?: CopyOptions['sourceFormat'];
  forceShare?: boolean;
  outputFormat?: CopyOptions['targetFormat'];
  options?: string[];
  compress?: boolean;
  bitmaps?: boolean;
  skipBrokenBitmaps?: boolean;
  backing?: string;
  backingFormat?: string;
  context?: string[];
  mode?: CopyOptions['mode'];
  dryRun?: boolean;
  allocated?: boolean;
  targetIsZero?: boolean;
  detectZeroes?: CopyOptions['detectZeroes'];
  connections?: number;
  requests?: number;
  requestSize?: number;
  threads?: number;
  sequential?: boolean;
  digest?: boolean;
  verify?: boolean;
  preallocation?: CopyOptions['preallocation'];
  flush: boolean;
  resume?: string;
  rate?: number;
  onReadError?: CopyOptions['onReadError'];
  onWriteError?: CopyOptions['onWriteError'];
  retries?: number;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna copy disk.raw copy.raw
  lacuna copy -c -o cluster_size=128K disk.raw disk.qcow2
  lacuna copy --bitmaps overlay.qcow2 flat.qcow2
  lacuna copy nbd://host/vda disk.raw --requests 32
  lacuna copy disk.raw nbd://host/new --target-is-zero
  lacuna copy --context qemu:dirty-bitmap:backup0 nbd://host/vda disk.raw
  lacuna copy --context qemu:dirty-bitmap:backup0 -B base.qcow2 -F qcow2 nbd://host/vda increment.qcow2
  lacuna copy nbd://host/vda - | zstd > disk.raw.zst
  zstd -dc disk.raw.zst | lacuna copy - disk.raw
  lacuna copy --dry-run --mode top driver=nbd,server.type=unix,server.path=/run/nbd.sock
  lacuna copy --resume disk.resume nbd://host/vda disk.raw

With --context the target must hold the state that the bitmap counts from: only what is dirty is written.
With --mode top it must hold what the layers below the top one hold.
Ctrl-C finishes what is in flight; a second one stops at once. SIGUSR2 pauses the copy, and makes it go on.
With --json every line is a document: {"type": "progress", ...}, and at the end {"type": "report", ...}.`;

/** Adds `lacuna copy`. */
export function registerCopy(program: Command, shell: Shell): void {
  program
    .command('copy')
    .summary('make a target equal to a source')
    .description('Makes a target equal to a source, moving only what has to move.')
    .argument('<source>', 'the device to read; - is standard input')
    .argument('[target]', 'the device to write, made if it is a file; - is standard output')
    .optionsGroup('The two ends:')
    .option(FORMAT_FLAG, FORMAT_TEXT)
    .option(SHARE_FLAG, SHARE_TEXT)
    .addOption(
      new Option('-O, --output-format <format>', 'image format of the target').choices([
        'raw',
        'qcow2',
      ]),
    )
    .option(
      '-o, --options <list>',
      'how a new qcow2 image is made, as qemu-img has it: cluster_size=1M,compat=1.1,...',
      collect,
    )
    .option('-c, --compress', 'compress the clusters of a qcow2 image')
    .option(
      '-B, --backing <file>',
      'make a qcow2 image over this one, of what --context or --mode top selects',
    )
    .option('-F, --backing-format <format>', 'format of the backing file')
    .option('--bitmaps', 'give a new qcow2 image the bitmaps of the source as well')
    .option('--skip-broken-bitmaps', 'leave out those that are inconsistent')
    .optionsGroup('What to copy:')
    .option(
      '--context <name>',
      'copy only what this context marks: qemu:dirty-bitmap:NAME; may be repeated',
      collect,
    )
    .addOption(
      new Option('--mode <mode>', 'copy all, or only what the top layer holds').choices([
        'full',
        'top',
      ]),
    )
    .option('--dry-run', 'say what would be moved, and move nothing; no target is needed')
    .optionsGroup('Zeroes and space:')
    .option('--target-is-zero', 'the target reads as zero everywhere: write no zeroes to it')
    .addOption(
      new Option(
        '--detect-zeroes <mode>',
        'look for zeroes inside data, and write them as such (on) or as holes (unmap)',
      ).choices(['off', 'on', 'unmap']),
    )
    .option('--allocated', 'zero without making holes')
    .addOption(
      new Option(
        '--preallocation <mode>',
        'space that a new file takes at once: none, mapped (qcow2), allocated, or written with zeroes',
      ).choices(['off', 'metadata', 'falloc', 'full']),
    )
    .optionsGroup('Speed:')
    .option(
      '--connections <n>',
      'connections to each side; each has a thread of its own',
      parseCount(1),
    )
    .option('--requests <n>', 'requests in flight on each connection', parseCount(1))
    .option('--request-size <size>', 'bytes of one request, such as 512K', parseBytes)
    .option('--threads <n>', 'worker threads; 0 does without', parseCount(0))
    .option('--rate <size>', 'bytes of data per second at most, such as 50M', parseBytes)
    .option('--sequential', 'write in the order of offsets')
    .optionsGroup('Safety:')
    .option('--verify', 'read the target back and compare it with the source')
    .option('--digest', 'print the digest of what was read; see `lacuna digest`')
    .option('--no-flush', 'do not wait until the target is durable')
    .option('--resume <file>', 'keep in this file what remains, and go on from it if it is there')
    .addOption(policyOption('read', 'left out, and zeroed in the target'))
    .addOption(policyOption('write', 'left out'))
    .option(
      '--retries <n>',
      'make failed requests again so often, before the policy decides (with retry: 5)',
      parseCount(0),
    )
    .optionsGroup('Output:')
    .option('--json', 'print progress and report as JSON, one document per line')
    .addHelpText('after', EXAMPLES)
    .action((source: string, target: string | undefined, flags: CopyFlags, command: Command) => {
      const options = { source, ...optionsOf(flags) };
      if (flags.dryRun && source === STREAM) {
        throw new TypeError(
          'nobody knows what standard input holds before it is read: --dry-run needs a device',
        );
      }
      if (flags.dryRun) return dryRun({ ...options, signal: shell.signal }, flags, shell);
      if (target === undefined) return command.error("error: missing required argument 'target'");
      if (source === STREAM || target === STREAM) {
        return copyStream({ ...options, source, target, signal: shell.signal }, flags, shell);
      }
      return copyCommand({ ...options, target }, flags, shell);
    });
}

function policyOption(side: 'read' | 'write', ignored: string): Option {
  const text =
    `when a ${side} fails: fail (report), try again and then fail (retry), wait for SIGUSR2 to try again (stop), ` +
    `or go on (ignore): what fails is ${ignored}`;
  const choices = ['report', 'retry', 'stop', 'ignore'];
  return new Option(`--on-${side}-error <policy>`, text).choices(choices);
}

/** Leaves out what was not said, so that the defaults are the engine's. */
function optionsOf(flags: CopyFlags): Partial<CopyOptions> {
  const backing = { file: flags.backing, format: flags.backingFormat };
  const { image, preallocation } = parseImageOptions(flags.options ?? [], backing);
  const options = {
    sourceFormat: flags.format,
    forceShare: flags.forceShare,
    targetFormat: flags.outputFormat,
    image,
    compress: flags.compress,
    carryBitmaps: flags.bitmaps,
    skipBrokenBitmaps: flags.skipBrokenBitmaps,
    context: flags.context,
    mode: flags.mode,
    unmap: flags.allocated ? false : undefined,
    targetIsZero: flags.targetIsZero,
    detectZeroes: flags.detectZeroes,
    requests: flags.requests,
    requestSize: flags.requestSize,
    threads: threadsOf(flags),
    sequential: flags.sequential,
    digest: flags.digest,
    verify: flags.verify,
    preallocation: flags.preallocation ?? preallocation,
    flush: flags.flush,
    resume: flags.resume,
    rate: flags.rate,
    onReadError: flags.onReadError,
    onWriteError: flags.onWriteError,
    retry: flags.retries === undefined ? undefined : { attempts: flags.retries },
  };
  const said = Object.entries(options).filter(([, value]) => value !== undefined);
  return Object.fromEntries(said) as Partial<CopyOptions>;
}

/** A connection belongs to one thread, so the smaller of the two numbers is what there will be of both. */
function threadsOf({ connections, threads }: CopyFlags): number | undefined {
  if (connections === undefined || threads === undefined) return threads ?? connections;
  return Math.min(connections, threads);
}

async function copyCommand(options: CopyOptions, flags: CopyFlags, shell: Shell): Promise<void> {
  const job = copy(options);
  const letGo = steerBySignals(job, shell);
  try {
    const report = await (flags.json ? copyWithJson(job, shell) : copyWithBar(job, shell));
    for (const warning of report.warnings) shell.note(`lacuna: warning: ${warning}\n`);
    noteLeftOut(report, shell);
  } catch (error) {
    // Whatever happened to the output, the copy comes to its end first.
    job.stop();
    await job.catch(() => {});
    noteResumable(job, shell);
    throw error;
  } finally {
    letGo();
  }
}

/** Ranges that people are told of; programs get all of them in the report. */
const MOST_TOLD = 10;

/** Says what is missing, and sets the exit code that says so. */
function noteLeftOut({ leftOutBytes, errors, moreErrors }: CopyReport, shell: Shell): void {
  if (errors.length === 0) return;
  shell.exitCode = Exit.leftOut;
  for (const { side, offset, length, error } of errors.slice(0, MOST_TOLD)) {
    const what = `${length} bytes at ${offset} of the ${side}`;
    shell.note(`lacuna: left out ${what}: ${error.message} (${error.code})\n`);
  }
  const more = Math.max(0, errors.length - MOST_TOLD) + moreErrors;
  if (more > 0) shell.note(`lacuna: and ${more} more ranges; --json lists them\n`);
  shell.note(`lacuna: left out ${formatBytes(leftOutBytes)} in all\n`);
}

/** Says that nothing is lost. */
function noteResumable({ resumable }: CopyJob, shell: Shell): void {
  if (resumable === undefined) return;
  const left = `${formatBytes(resumable.remainingBytes)} remain`;
  shell.note(`lacuna: ${left} (${resumable.file}); run the same command again to go on\n`);
}

async function copyWithJson(job: CopyJob, shell: Shell): Promise<CopyReport> {
  for await (const progress of job) await shell.print(jsonLine('progress', plain(progress)));
  const report = await job;
  await shell.print(jsonLine('report', report));
  return report;
}

/** An error's own fields are not for JSON. */
function plain({ error, ...progress }: CopyProgress): object {
  if (error === undefined) return progress;
  const code = error instanceof LacunaError ? error.code : undefined;
  return { ...progress, error: { code, message: error.message } };
}

function jsonLine(type: string, content: object): string {
  return `${JSON.stringify({ type, ...content })}\n`;
}

async function copyWithBar(job: CopyJob, shell: Shell): Promise<CopyReport> {
  const report = await showProgress(job, shell);
  await shell.print(`${describeCopy(report)}\n`);
  if (report.verifiedBytes !== undefined) {
    await shell.print(`Verified: ${formatBytes(report.verifiedBytes)} were read back.\n`);
  }
  if (report.digest !== undefined) await shell.print(`Digest: ${report.digest}\n`);
  const { bitmaps = [] } = report;
  if (bitmaps.length > 0) await shell.print(`Bitmaps: ${bitmaps.join(', ')}\n`);
  return report;
}

const PHASES: Record<CopyProgress['phase'], string> = {
  plan: 'Planning',
  zero: 'Zeroing',
  move: 'Copying',
  flush: 'Flushing',
  verify: 'Verifying',
  done: 'Done',
};

function nameOf({ phase, state }: CopyProgress): string {
  if (state === 'running') return PHASES[phase];
  return state === 'paused' ? 'Paused' : 'Stopped';
}

/** Follows a job with a bar, where there is a terminal for one, and returns its report. */
export async function showProgress(job: CopyJob, shell: Shell): Promise<CopyReport> {
  const bar = await ProgressBar.start(shell);
  try {
    for await (const progress of job) bar.show({ ...progress, phase: nameOf(progress) });
    return await job;
  } finally {
    bar.stop();
  }
}

/** What a copy did, in one sentence. */
export function describeCopy(report: CopyReport): string {
  const { size, movedBytes, zeroedBytes, skippedBytes, resumedBytes, durationMs } = report;
  const { leftOutBytes, retries } = report;
  const deeds = [`moved ${formatBytes(movedBytes)}`];
  if (resumedBytes > 0) deeds.push(`found ${formatBytes(resumedBytes)} done`);
  if (zeroedBytes > 0) deeds.push(`zeroed ${formatBytes(zeroedBytes)}`);
  deeds.push(`left ${formatBytes(skippedBytes)} alone`);
  if (leftOutBytes > 0) deeds.push(`left ${formatBytes(leftOutBytes)} out because it failed`);
  if (retries > 0) deeds.push(`made ${retries} requests again`);
  const rate = movedBytes > 0 ? ` (${formatRate(movedBytes, durationMs)})` : '';
  const time = formatDuration(durationMs);
  return `Copied a disk of ${formatBytes(size)}: ${deeds.join(', ')}, in ${time}${rate}.`;
}
