import type { Command } from 'commander';
import { type DeviceDescription, filesOf, parseDescription } from '../../../block/index.js';
import { type CopyJob, type CopyOptions, type CopyReport, copy } from '../../../copy/index.js';
import { LacunaError } from '../../../errors/index.js';
import { statIfThere } from '../../../files/index.js';
import {
  checkDigestFile,
  insistingOn,
  loadBitmaps,
  parseBitmaps,
  partOf,
  sourceOf,
  storeDigest,
  warnOfName,
  withFolders,
} from '../../device/index.js';
import { noteStep, noteWarnings, printable, type Shell, setFormatFlag } from '../../shell/index.js';
import { formatBytes } from '../../text/index.js';
import {
  describeCopy,
  describeEffort,
  progressDocument,
  showCopy,
  steerBySignals,
} from '../../view/index.js';
import { cleanCommand } from './copy-clean.js';
import { addCopyFlags, type CopyFlags, optionsOf } from './copy-flags.js';
import { noteLeftOut, noteNoRoom, noteResumable, noteUnfinished } from './copy-notes.js';
import { checkStream, copyStream, STREAM } from './copy-stream.js';
import { dryRun } from './dry-run.js';
import { followRateFile, readRate } from './rate-file.js';
import { checkSideFiles } from './side-files.js';

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
  lacuna copy --offset 1M --length 512M disk.raw partition.raw
  lacuna copy --target-offset 1M partition.raw disk.raw
  lacuna copy --clean disk.raw

With --context the target must hold the state that the bitmap counts from: only what is dirty is written.
With --mode top it must hold what the layers below the top one hold.
Ctrl-C finishes what is in flight; a second one stops at once. SIGUSR2 pauses the copy; a second one continues it.
SIGUSR1 prints its progress.
To change the rate of a copy with --rate-file FILE: echo 10M > FILE; kill -HUP PID
With --json every line is a document: {"type": "progress", ...}, and at the end {"type": "report", ...}, or
{"type": "error", "code": ..., "message": ...} where it failed. With --dry-run there is one: {"type": "plan", ...}.`;

/** Tells commander what `lacuna copy` takes, and what it does. */
export function registerCopy(command: Command, shell: Shell): void {
  command
    .description('Makes a target equal to a source, moving only what has to move.')
    .argument('<source>', 'the device to read; - is standard input')
    .argument('[target]', 'the device to write, made if it is a file; - is standard output');
  addCopyFlags(command, shell)
    .addHelpText('after', EXAMPLES)
    .action(async (source: string, target: string | undefined, flags: CopyFlags) => {
      // Standard output belongs to the bytes.
      if (target === STREAM && !flags.dryRun) shell.failureDocument = undefined;
      if (flags.clean) {
        const names = [source, ...(target === undefined ? [] : [target])];
        return await cleanCommand(names, flags, shell);
      }
      checkFlags(source, flags);
      if (flags.dryRun) return await dryRunCommand(source, flags, shell);
      if (target === undefined) return command.error("error: missing required argument 'target'");
      if (source === STREAM || target === STREAM) {
        return await streamCommand(source, target, flags, shell);
      }
      await copyCommand(source, target, flags, shell);
    });
}

/** Refuses what cannot be meant, before anything is opened. */
function checkFlags(source: string, flags: CopyFlags): void {
  const { rate, rateFile, dryRun, targetIsZero, context, bitmap, mode } = flags;
  if (rate !== undefined && rateFile !== undefined) {
    throw new TypeError('--rate and --rate-file exclude each other');
  }
  if (dryRun && source === STREAM) {
    throw new TypeError(
      'nobody knows what standard input holds before it is read: --dry-run needs a device',
    );
  }
  if (flags.bitmaps && (flags.offset ?? flags.length) !== undefined) {
    throw new TypeError(
      'bitmaps of the source are those of its whole disk: leave out --bitmaps, or --offset and --length',
    );
  }
  if (targetIsZero && (context !== undefined || bitmap !== undefined || mode === 'top')) {
    throw new TypeError(
      '--context, --bitmap and --mode top copy a part to a target that holds the rest of the disk, which therefore does not read as zero everywhere: leave out --target-is-zero',
    );
  }
}

async function dryRunCommand(source: string, flags: CopyFlags, shell: Shell): Promise<void> {
  const { bitmap } = flags;
  const options = { source: sourceOf(source, flags), ...optionsOf(flags) };
  const scope = await scopeOf(bitmap);
  await dryRun({ ...options, ...scope, signal: shell.signal }, flags, shell);
}

async function streamCommand(
  source: string,
  target: string,
  flags: CopyFlags,
  shell: Shell,
): Promise<void> {
  checkStream(source, target, flags, shell);
  const from = source === STREAM ? STREAM : sourceOf(source, flags);
  const options = { ...optionsOf(flags), source: from, target, signal: shell.signal };
  await copyStream(options, flags, shell);
}

/** The bitmaps of files that say what is copied. */
async function scopeOf(texts: readonly string[] = []): Promise<Pick<CopyOptions, 'bitmap'>> {
  if (texts.length === 0) return {};
  const { ofSource, ofFiles } = parseBitmaps(texts, 'NAME=FILE');
  const [odd] = ofSource;
  if (odd !== undefined) {
    throw new TypeError(
      `--bitmap ${odd}: say NAME=FILE; a bitmap of the source itself is --context qemu:dirty-bitmap:${odd}`,
    );
  }
  return { bitmap: Object.values(await loadBitmaps(ofFiles)) };
}

/** A job in an object: by itself it would be awaited. */
async function begin(options: CopyOptions, flags: CopyFlags) {
  const { rateFile, digestFile, bitmap } = flags;
  checkSideFiles(options, flags);
  if (digestFile !== undefined) await checkDigestFile(digestFile);
  const rate = rateFile === undefined ? options.rate : await readRate(rateFile);
  const scope = await scopeOf(bitmap);
  return { job: copy({ ...options, ...scope, ...(rate !== undefined && { rate }) }) };
}

/** Why the copy has failed; undefined where it is whole. Whatever happened to the output, it comes to its end first. */
async function failureOf(job: CopyJob): Promise<unknown> {
  job.stop();
  try {
    await job;
    return undefined;
  } catch (failure) {
    return failure;
  }
}

async function copyCommand(
  source: string,
  target: string,
  flags: CopyFlags,
  shell: Shell,
): Promise<void> {
  const { outputFormat, rateFile, digestFile } = flags;
  const options = {
    ...optionsOf(flags),
    source: sourceOf(source, flags),
    target: targetOf(target, flags),
  };
  if (flags.existing) refuseAbsent(options.target);
  setFormatFlag(shell, '-O', target, source);
  noteStep(`source: ${printable(told(options.source))}`, shell);
  noteStep(`target: ${printable(told(options.target))}`, shell);
  // From now on: one that comes before the copy begins must not end it.
  shell.usesHangUp = rateFile !== undefined;
  const { job } = await begin(options, flags);
  const stopSteering = steerBySignals(job, shell);
  const unfollow = rateFile === undefined ? () => {} : followRateFile(rateFile, job, shell);
  try {
    const report = await (flags.json ? copyWithJson(job, shell) : copyWithBar(job, shell));
    const { digest = '', size } = report;
    if (digestFile !== undefined) {
      noteWarnings(await storeDigest(digestFile, { digest, size }), shell);
    }
    noteWarnings(report.warnings, shell);
    noteLeftOut(report, shell);
  } catch (error) {
    const failure = await failureOf(job);
    noteResumable(job, error, shell);
    noteUnfinished(job, error, shell);
    // Standard output may have no room either, which says nothing of the target.
    if (!options.inPlace) noteNoRoom(target, failure, shell);
    if (flags.json) shell.failureDocument = leftBy(job);
    throw error;
  } finally {
    unfollow();
    stopSteering();
  }
  if (outputFormat !== undefined) warnOfName(target, outputFormat, shell);
}

/** The target as the command line names it, and as the flags have it opened. */
function targetOf(target: string, flags: CopyFlags): string | DeviceDescription {
  const { outputFormat, backingFolder, forceInUse, targetOffset } = flags;
  const named = withFolders(target, outputFormat, backingFolder);
  const insisted = forceInUse ? insistingOn(named, outputFormat) : named;
  return partOf(insisted, outputFormat, { offset: targetOffset });
}

/** @throws LacunaError ERR_DEVICE_OPEN where the file that is to be written into is not there. */
function refuseAbsent(target: string | DeviceDescription): void {
  const description = typeof target === 'string' ? parseDescription(target) : target;
  const absent = filesOf(description).find((path) => statIfThere(path) === undefined);
  if (absent === undefined) return;
  const message = `${absent} is not there, and -n makes none: check the path, or leave out -n`;
  throw new LacunaError('ERR_DEVICE_OPEN', message, { device: absent, errno: 'ENOENT' });
}

/** A device as it will be opened. */
function told(device: string | object): string {
  return typeof device === 'string' ? device : JSON.stringify(device);
}

/** What a copy that failed has left, for the document of its failure. */
function leftBy({ resumable, unfinished, partlyWritten, partOfImage }: CopyJob) {
  return { resumable, unfinished, partlyWritten, partOfImage };
}

async function copyWithJson(job: CopyJob, shell: Shell): Promise<CopyReport> {
  const report = await showCopy(job, shell, (progress) =>
    shell.print(jsonLine('progress', progressDocument(progress))),
  );
  await shell.print(jsonLine('report', report));
  return report;
}

function jsonLine(type: string, content: object): string {
  return `${JSON.stringify({ type, ...content })}\n`;
}

async function copyWithBar(job: CopyJob, shell: Shell): Promise<CopyReport> {
  const report = await showCopy(job, shell);
  await shell.print(`${describeCopy(report)}\n${describeEffort(report)}`);
  if (report.verifiedBytes !== undefined) {
    await shell.print(`Verified: ${formatBytes(report.verifiedBytes)} were read back.\n`);
  }
  if (report.digest !== undefined) await shell.print(`Digest: ${report.digest}\n`);
  const { bitmaps = [] } = report;
  if (bitmaps.length > 0) await shell.print(`Bitmaps: ${bitmaps.map(printable).join(', ')}\n`);
  return report;
}
