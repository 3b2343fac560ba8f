/** `lacuna migrate`: a running machine moves to another QEMU. */

import { tmpdir } from 'node:os';
import type { Command } from 'commander';
import { type NbdServerAddress, parseNbdUri } from '../../../nbd/address/index.js';
import type {
  Machine,
  MigrateOptions,
  MigratePhase,
  MigratePlan,
  MigratePlanDisk,
  MigrateReport,
} from '../../../qemu/index.js';
import { addOutputFlags, parseBytes } from '../../device/index.js';
import { collect, noteWarnings, printable, type Shell } from '../../shell/index.js';
import { formatBytes, formatDuration } from '../../text/index.js';
import { showJob, steerBySignals } from '../../view/index.js';

interface MigrateFlags {
  qmp: string;
  toQmp: string;
  bitmap: string;
  disk?: string[];
  stream?: string;
  leave?: number;
  rate?: number;
  nbd?: string;
  scratch?: string;
  plan?: boolean;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  qemu-img create -f qcow2 -F qcow2 -b /backup/machines/web/disks/vda/7.qcow2 /new/vda.qcow2
  qemu-system-x86_64 ... /new/vda.qcow2 ... -qmp unix:/run/new.qmp,server=on,wait=off -incoming defer
  lacuna migrate --qmp /run/web.qmp --to-qmp /run/new.qmp --bitmap 1a2b3c4d-0011223344556677 --plan /new/vda.qcow2
  lacuna migrate --qmp /run/web.qmp --to-qmp /run/new.qmp --bitmap b0 --disk vda=/new/a.qcow2 --disk vdb=/new/b.qcow2
  lacuna migrate --qmp /run/web.qmp --to-qmp /run/new.qmp --bitmap b0 --stream tcp:10.0.0.2:4444 /new/vda.qcow2

The target holds what the disk held when the bitmap began to count: as a rule it is an overlay over the last restore
point, and "lacuna prune" leaves that alone from then on. The destination has opened it already, and has the devices of
the source. What is dirty is copied in rounds while the guest goes on, then the memory, then, while the machine stands
still, the rest. Ctrl-C gives up: until the destination runs, the source goes on with its own disk. In the end the
source is ended, and the bitmap is in the target: the next backup goes on from the same restore point.`;

/** Tells commander what `lacuna migrate` takes, and what it does. */
export function registerMigrate(command: Command, shell: Shell): void {
  command
    .description(
      'Moves a running machine to another QEMU, with its disks, by what a dirty bitmap has marked.',
    )
    .argument('[target]', 'the image on the destination, where the machine has one disk')
    .requiredOption('--qmp <socket>', 'the socket of the monitor of the source')
    .requiredOption('--to-qmp <socket>', 'that of the destination, started with -incoming defer')
    .requiredOption(
      '--bitmap <bitmap>',
      'what has marked the writes: a name that the bitmaps of all disks have, or the generation of a backup',
    );
  addHow(command)
    .addHelpText('after', EXAMPLES)
    .action((target: string | undefined, flags: MigrateFlags) =>
      migrateCommand(target, flags, shell),
    );
  addOutputFlags(command, shell);
}

function addHow(command: Command): Command {
  return command
    .option('--disk <disk=target>', 'the image that a disk moves to; may be repeated', collect)
    .option(
      '--stream <address>',
      'where the memory is sent: tcp:HOST:PORT or unix:PATH (default: a socket in the scratch folder)',
    )
    .option(
      '--leave <size>',
      'so much may be dirty when the machine is stopped (default: 16M)',
      parseBytes,
    )
    .option(
      '--rate <size>',
      'bytes per second that are read from disks at most, while it runs',
      parseBytes,
    )
    .option('--nbd <uri>', 'where the NBD server of the source listens, if it runs one already')
    .option(
      '--scratch <folder>',
      'for what the guest overwrites meanwhile (default: that of temporary files)',
    )
    .option('--plan', 'tell what would move and what is in the way, and do nothing')
    .option('--json', 'print one JSON document');
}

async function migrateCommand(
  target: string | undefined,
  flags: MigrateFlags,
  shell: Shell,
): Promise<void> {
  const named = (flags.disk ?? []).map(parseDisk);
  if ((target === undefined) === (named.length === 0)) {
    throw new TypeError('say where the disk moves: TARGET, or --disk DISK=TARGET for each disk');
  }
  const { Machine } = await import('../../../qemu/index.js');
  const { qmp, nbd, scratch = tmpdir() } = flags;
  await using machine = await Machine.connect({
    monitor: { path: qmp },
    folder: scratch,
    ...(nbd !== undefined && { nbd: addressOf(nbd) }),
    signal: shell.signal,
  });
  const targets =
    target === undefined ? Object.fromEntries(named) : { [await onlyDisk(machine)]: target };
  const { bitmap, toQmp, stream, leave, rate } = flags;
  const what = { destination: { path: toQmp }, bitmap, targets };
  if (flags.plan) {
    const plan = await machine.planMigration({ ...what, signal: shell.signal });
    await shell.print(flags.json ? `${JSON.stringify(plan)}\n` : describePlan(plan));
    return;
  }
  const report = await show(machine, { ...what, stream, leaveBytes: leave, rate }, shell);
  await shell.print(flags.json ? `${JSON.stringify(report)}\n` : describeReport(report));
  noteWarnings([...report.warnings], shell);
}

const PHASES: Record<MigratePhase, string> = {
  rounds: 'Copying',
  memory: 'Moving memory',
  last: 'Copying the rest',
  switch: 'Switching',
  done: 'Done',
};

/** The first interruption gives up, where that is still possible. */
async function show(
  machine: Machine,
  options: MigrateOptions,
  shell: Shell,
): Promise<MigrateReport> {
  const job = machine.migrate(options);
  const letGo = steerBySignals(job, shell);
  try {
    return await showJob(job, shell, ({ phase, round }) =>
      phase === 'rounds' ? `${PHASES[phase]}, round ${round + 1}` : PHASES[phase],
    );
  } finally {
    letGo();
  }
}

/** @throws TypeError where there are several, or none */
async function onlyDisk(machine: Machine): Promise<string> {
  const names = (await machine.inspect()).map(({ name }) => name);
  if (names.length === 1) return names[0];
  throw new TypeError(
    names.length === 0
      ? 'the machine has no disk that it can write'
      : `the machine has the disks ${names.join(', ')}: say for each where it moves (--disk DISK=TARGET)`,
  );
}

function parseDisk(text: string): [string, string] {
  const at = text.indexOf('=');
  if (at > 0 && at < text.length - 1) return [text.slice(0, at), text.slice(at + 1)];
  throw new TypeError(`--disk takes DISK=TARGET, such as vda=/new/vda.qcow2, not ${text}`);
}

function addressOf(uri: string): NbdServerAddress {
  return parseNbdUri(uri).server;
}

function describePlan({ disks, memoryBytes, obstacles }: MigratePlan): string {
  const lines = disks.map(describeDisk);
  const memory = `Memory: up to ${formatBytes(memoryBytes)}, and what the guest writes of it meanwhile.\n`;
  const inTheWay = obstacles.map((obstacle) => `In the way: ${obstacle}.\n`);
  return [...lines, memory, ...inTheWay].join('');
}

function describeDisk({
  name,
  target,
  size,
  bitmap,
  dirtyBytes,
  carriesBitmap,
  otherBitmaps,
}: MigratePlanDisk): string {
  const what = `${formatBytes(dirtyBytes)} of ${formatBytes(size)} are dirty in "${printable(bitmap)}"`;
  const next = carriesBitmap
    ? 'the next increment goes on from there'
    : 'it cannot keep the bitmap, so the next backup is full';
  const others = otherBitmaps.map((other) => `"${printable(other)}"`).join(', ');
  const left =
    others === ''
      ? ''
      : ` Its other bitmaps do not arrive (${others}): what counts from them is full next time.`;
  return `${printable(name)}: ${what} and would move to ${printable(target)}; ${next}.${left}\n`;
}

function describeReport({ rounds, memoryBytes, pauseMs, isRunning }: MigrateReport): string {
  const lines = rounds.map(({ movedBytes, zeroedBytes, leftBytes, durationMs }, i) => {
    const zero = zeroedBytes > 0 ? `, ${formatBytes(zeroedBytes)} zeroed` : '';
    const left = i === rounds.length - 1 ? 'nothing left' : `${formatBytes(leftBytes)} left`;
    return `Round ${i + 1}: ${formatBytes(movedBytes)} copied${zero} in ${formatDuration(durationMs)}, ${left}.\n`;
  });
  const memory = `Memory: ${formatBytes(memoryBytes)} sent.\n`;
  const stood = pauseMs === undefined ? '' : ` It stood still for ${formatDuration(pauseMs)}.`;
  const end = isRunning
    ? 'The machine runs on the destination, and the source has ended.'
    : 'The machine is on the destination, stopped as it was, and the source has ended.';
  return `${lines.join('')}${memory}${end}${stood}\n`;
}
