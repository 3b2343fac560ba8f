import { basename } from 'node:path';
import type { Command } from 'commander';
import { parseNbdUri } from '../../../nbd/address/index.js';
import type { BackupOptions, BackupReport, DiskPlan } from '../../../repository/index.js';
import { counted } from '../../../util/index.js';
import {
  addOutputFlags,
  addSourceFlags,
  parseBytes,
  parseCount,
  readConfiguration,
  type SourceFlags,
  sourceOf,
} from '../../device/index.js';
import { collect, noteWarnings, printable, type Shell } from '../../shell/index.js';
import { formatBytes, formatDuration } from '../../text/index.js';
import { showRepositoryJob } from '../../view/index.js';
import {
  addRunningFlags,
  backupRunning,
  checkNoRunningFlags,
  compressionOf,
  type RunningFlags,
} from './running.js';

interface BackupFlags extends SourceFlags, RunningFlags {
  machine?: string;
  disk?: string[];
  full?: boolean;
  tag?: string[];
  compress?: boolean | string;
  bitmaps: boolean;
  configuration?: string;
  maxChain?: number;
  plan?: boolean;
  rate?: number;
  threads?: number;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna backup web.qcow2 /backup
  lacuna backup --plan web.qcow2 /backup
  lacuna backup --machine db root.qcow2 data.raw /backup
  lacuna backup --machine db --disk vda nbd://host/vda /backup
  lacuna backup --configuration web.xml web.qcow2 /backup
  lacuna backup --compress=zstd --tag before-upgrade web.qcow2 /backup
  lacuna backup --qmp /run/web.qmp --agent /run/web.qga /backup
  lacuna backup --qmp /run/web.qmp --plan /backup
  lacuna backup --libvirt web /backup
  lacuna backup --libvirt web --before 'sync-shop' --after 'report-backup' /backup

No machine may write to the disks meanwhile, unless --qmp or --libvirt names a running one: then all of its disks
are taken as they were at one moment, while it goes on (docs/live-backup.md). An increment is taken over the newest
restore point of the machine: what a bitmap in the qcow2 image says has changed, or what has other digests. The
bitmap is renewed in the image when the restore point exists. The last name is the repository: a folder, which is
made if it is not there. docs/repository.md says how it is laid out; qemu-img can restore from it.

Where --before fails, the backup is not begun. --after runs in any case, and gets LACUNA_OUTCOME (done or failed) and
LACUNA_POINT or LACUNA_ERROR; where it fails and the backup is done, the exit code is 3.`;

/** Tells commander what `lacuna backup` takes, and what it does. */
export function registerBackup(command: Command, shell: Shell): void {
  command
    .description(
      'Makes a restore point of the disks of a machine, at rest or running, in full or as an increment.',
    )
    .usage('[options] [source...] <repository>')
    .argument('<paths...>', 'the disks, then the repository');
  addRunningFlags(addSourceFlags(command))
    .option('--machine <name>', 'the machine (default: the name of its disk, if it has one)')
    .option(
      '--disk <name>',
      'the name of a disk, in the order of the sources; may be repeated',
      collect,
    )
    .option('--full', 'take all of every disk')
    .option('--tag <text>', 'a word to find the restore point by; may be repeated', collect)
    .option(
      '--configuration <file>',
      'keep this text, such as the definition of the machine, with the restore point',
    )
    .option('--compress [type]', 'compress what is stored: deflate (default), or zstd')
    .option(
      '--no-bitmaps',
      'leave the images as they are, so that the next increment reads all data',
    )
    .option(
      '--max-chain <n>',
      'images that lie over each other at most (default: 100)',
      parseCount(1),
    )
    .option('--plan', 'print what would be done and why, and do nothing')
    .option('--rate <size>', 'bytes per second that are read at most', parseBytes)
    .option('--threads <n>', 'worker threads; 0 does without', parseCount(0))
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action((paths: string[], flags: BackupFlags) => backupCommand(paths, flags, shell));
  addOutputFlags(command, shell);
}

async function backupCommand(
  paths: readonly string[],
  flags: BackupFlags,
  shell: Shell,
): Promise<void> {
  const sources = paths.slice(0, -1);
  const path = paths.at(-1)!;
  // It may have taken the first path for its value.
  if (flags.compress) compressionOf(flags.compress);
  if (flags.qmp !== undefined || flags.libvirt !== undefined) {
    if (sources.length > 0)
      throw new TypeError(`the disks of a running machine are its own (--disk), not ${sources[0]}`);
    if (flags.configuration !== undefined) {
      const why = 'that of a running machine is found out and kept without it';
      throw new TypeError(`--configuration is for disks at rest: ${why}`);
    }
    const report = await backupRunning(path, flags, shell);
    if (report !== undefined && !flags.json) await shell.print(describeReport(report));
    return;
  }
  checkNoRunningFlags(flags);
  if (sources.length === 0) {
    throw new TypeError(`name the disks to back up, then the repository: only ${path} was given`);
  }
  const options = { ...optionsOf(sources, flags), ...(await configurationOf(flags)) };
  const { Repository } = await import('../../../repository/index.js');
  const repository = Repository.open(path, flags.plan ? { absent: true } : { create: true });
  if (flags.plan) {
    const disks = await repository.plan(options);
    const text = disks.map(describePlan).join('');
    return await shell.print(flags.json ? `${JSON.stringify({ disks })}\n` : text);
  }
  const job = repository.backup({ ...options, rate: flags.rate });
  const report = await showRepositoryJob(job, shell);
  noteWarnings(report.warnings, shell);
  await shell.print(flags.json ? `${JSON.stringify(report)}\n` : describeReport(report));
}

function optionsOf(sources: readonly string[], flags: BackupFlags): BackupOptions {
  const { machine, disk: names = [], full, tag: tags, bitmaps, maxChain, forceShare } = flags;
  if (names.length > sources.length) {
    throw new TypeError(
      `more names than disks: --disk names ${names.length}, and there is ${counted(sources.length, 'source')}`,
    );
  }
  const disks = sources.map((source, i) => ({
    name: names[i] ?? nameOf(source),
    source: sourceOf(source, flags),
    format: flags.format,
  }));
  if (machine === undefined && disks.length > 1) {
    throw new TypeError('several disks are of one machine: say what it is called (--machine NAME)');
  }
  return {
    machine: machine ?? disks[0].name,
    disks,
    bitmaps,
    ...(full && { full }),
    ...(tags && { tags }),
    ...(flags.compress && { compress: compressionOf(flags.compress) }),
    ...(maxChain !== undefined && { longestChain: maxChain }),
    ...(forceShare && { forceShare }),
    ...(flags.threads !== undefined && { threads: flags.threads }),
  };
}

async function configurationOf({ configuration: path }: BackupFlags) {
  return path === undefined ? {} : { configuration: await readConfiguration(path) };
}

/** The name of a disk, from the name of its file or export. */
function nameOf(source: string): string {
  const isUri = /^nbds?(\+unix)?:/.test(source);
  const name = isUri
    ? parseNbdUri(source).export
    : basename(source).replace(/\.(qcow2|raw|img)$/, '');
  if (name !== undefined && /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name)) return name;
  throw new TypeError(`say what the disk ${source} is called (--disk NAME)`);
}

function describePlan({ name, source, mode, reason, dirtyBytes }: DiskPlan): string {
  const what = mode === 'full' ? 'all of it' : 'what has changed';
  const known = dirtyBytes === null ? '' : ` (${formatBytes(dirtyBytes)} dirty)`;
  return `${name}: ${what}${known}, ${mode === 'full' ? 'because ' : ''}${reason}. Source: ${printable(source)}\n`;
}

function describeReport({ point, disks, durationMs }: BackupReport): string {
  const lines = disks.map((disk) => {
    const { readBytes, movedBytes, resumedBytes, zeroedBytes, storedBytes } = disk;
    const bytes = [
      `${formatBytes(readBytes)} read`,
      `${formatBytes(movedBytes)} stored`,
      ...(resumedBytes > 0 ? [`${formatBytes(resumedBytes)} of it before`] : []),
      ...(zeroedBytes > 0 ? [`${formatBytes(zeroedBytes)} zero`] : []),
      `${formatBytes(storedBytes)} on disk`,
    ];
    return `${describePlan(disk)
      .replace(/ Source: .*/, '')
      .trimEnd()} ${bytes.join(', ')}.\n`;
  });
  const { machine, number } = point;
  return `${lines.join('')}Restore point ${machine}/${number} in ${formatDuration(durationMs)}.\n`;
}
