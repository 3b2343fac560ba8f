/** `lacuna backup --qmp` and `--libvirt`: a running machine. */
import { mkdirSync } from 'node:fs';
import type { Command } from 'commander';
import type { Fetch, FreezePolicy, MachineBackupOptions } from '../../../qemu/index.js';
import type { BackupReport } from '../../../repository/index.js';
import {
  addMachineFlags,
  diskNamed,
  type MachineFlags,
  nameOfMachine,
  parseCount,
  reachMachine,
  type SourceFlags,
} from '../../device/index.js';
import { Exit, noteWarnings, type Shell } from '../../shell/index.js';
import { describeMachinePlan, showRepositoryJob } from '../../view/index.js';
import { hooksOf } from './hooks.js';

/** The flags that are for running machines alone. */
export interface RunningFlags extends MachineFlags {
  freeze?: string;
  mode?: string;
  keepBitmaps?: number;
  before?: string;
  after?: string;
  hookTimeout?: number;
}

/** The flags of the command that have a meaning here. */
interface BackupFlags extends RunningFlags, SourceFlags {
  machine?: string;
  disk?: string[];
  full?: boolean;
  tag?: string[];
  compress?: boolean | string;
  bitmaps: boolean;
  maxChain?: number;
  plan?: boolean;
  rate?: number;
  threads?: number;
  json?: boolean;
}

const MODES: readonly string[] = ['pull', 'push'] satisfies Fetch[];
const FREEZE: readonly string[] = ['require', 'try', 'off'] satisfies FreezePolicy[];

export function addRunningFlags(command: Command): Command {
  return addMachineFlags(command, 'back up a running machine')
    .option(
      '--agent <socket>',
      'the socket of its guest agent, which freezes the file systems for a moment',
    )
    .option(
      '--freeze <policy>',
      'require: no backup without a freeze; try (default with --agent); off',
    )
    .option(
      '--mode <mode>',
      'pull (default): read the data from QEMU; push: have QEMU write it here (from 8.0)',
    )
    .option(
      '--keep-bitmaps <n>',
      'how many of the newest points keep their bitmaps in the machine (default: 1)',
      parseCount(1, 100),
    )
    .option('--before <command>', 'run this before the backup of a running machine begins')
    .option('--after <command>', 'run this when it has ended, well or not')
    .option('--hook-timeout <seconds>', 'how long either may take (default: 600)', parseCount(1));
}

/** @throws TypeError for a flag that is for running machines alone */
export function checkNoRunningFlags(flags: RunningFlags): void {
  const given = (
    [
      ...(['agent', 'freeze', 'mode', 'nbd', 'scratch', 'connect'] as const),
      ...(['before', 'after', 'hookTimeout', 'keepBitmaps'] as const),
    ] as const
  ).find((name) => flags[name] !== undefined);
  if (given === undefined) return;
  const which = given === 'connect' ? '--libvirt' : '--qmp';
  const flag = given.replace(/[A-Z]/, (letter) => `-${letter.toLowerCase()}`);
  throw new TypeError(`--${flag} goes with ${which}, for a running machine`);
}

/** @throws TypeError */
export function compressionOf(type: true | string): 'deflate' | 'zstd' {
  if (type === true) return 'deflate';
  if (type === 'deflate' || type === 'zstd') return type;
  throw new TypeError(
    `--compress is deflate or zstd, not ${type}; write --compress=deflate where a path follows`,
  );
}

/** Backs the machine up; with `--plan` only tells, and with `--json` prints the report itself. */
export async function backupRunning(
  path: string,
  flags: BackupFlags,
  shell: Shell,
): Promise<BackupReport | undefined> {
  // Flags that make no sense are refused before anything is made, the repository included.
  checkRunningFlags(flags);
  const given = optionsOf(flags);
  const reachable = reachMachine(flags, path);
  const { Repository } = await import('../../../repository/index.js');
  const { backupMachine, planMachine } = await import('../../../qemu/index.js');
  const absent = Repository.open(path, { absent: true });
  const machine = await reachable.connect(shell);
  try {
    const options = { ...given, machine: flags.machine ?? (await nameOfMachine(machine)) };
    absent.checkBackup(options);
    if (flags.plan) {
      const { machine: name, disks, full, fetch } = options;
      const asked = { machine: name, disks, full, fetch };
      const planned = await planMachine(absent, machine, asked);
      await shell.print(flags.json ? `${JSON.stringify(planned)}\n` : describeMachinePlan(planned));
      return undefined;
    }
    const repository = Repository.open(path, { create: true });
    makeSessions(reachable.folder, flags);
    const { hooks, hasFailed } = hooksOf(
      flags,
      { machine: options.machine, repository: repository.path },
      shell,
    );
    const job = backupMachine(repository, machine, { ...options, ...hooks, rate: flags.rate });
    const report = await showRepositoryJob(job, shell);
    if (hasFailed()) shell.exitCode = Exit.leftOut;
    noteWarnings(report.warnings, shell);
    if (flags.json) await shell.print(`${JSON.stringify(report)}\n`);
    return report;
  } finally {
    if ('close' in machine) await machine.close();
  }
}

/** @throws TypeError for flags that do not go together */
function checkRunningFlags(flags: BackupFlags): void {
  const { format, forceShare, backingFolder, bitmaps, freeze, libvirt, agent, mode } = flags;
  const atRest = { '--format': format, '--force-share': forceShare };
  const more = { '--backing-folder': backingFolder, '--no-bitmaps': bitmaps ? undefined : true };
  for (const [flag, value] of Object.entries({ ...atRest, ...more })) {
    if (value === undefined) continue;
    throw new TypeError(`${flag} is for disks at rest: leave it out for a running machine`);
  }
  if (freeze !== undefined && !FREEZE.includes(freeze)) {
    throw new TypeError(`--freeze is ${FREEZE.join(', ')}, not ${freeze}`);
  }
  if (mode !== undefined && !MODES.includes(mode)) {
    throw new TypeError(`--mode is ${MODES.join(' or ')}, not ${mode}`);
  }
  if (mode === 'push' && libvirt !== undefined) {
    throw new TypeError(
      '--mode push does not go with --libvirt: libvirt pushes the disks themselves, and the guest waits for that',
    );
  }
  if (freeze === 'require' && libvirt === undefined && agent === undefined) {
    throw new TypeError('--freeze require needs --agent SOCKET, that of the guest agent');
  }
}

function optionsOf(flags: BackupFlags): Omit<MachineBackupOptions, 'machine'> {
  const { disk, full, tag, compress, maxChain, threads, freeze, mode, keepBitmaps } = flags;
  return {
    ...(disk && { disks: disk.map(diskNamed) }),
    ...(full && { full }),
    ...(tag && { tags: tag }),
    ...(compress && { compress: compressionOf(compress) }),
    ...(maxChain !== undefined && { longestChain: maxChain }),
    ...(threads !== undefined && { threads }),
    ...(mode !== undefined && { fetch: mode as Fetch }),
    ...(keepBitmaps !== undefined && { keepBitmaps }),
    ...(freeze !== undefined && { freeze: freeze as FreezePolicy }),
  };
}

function makeSessions(folder: string, { libvirt }: RunningFlags): void {
  // libvirt's QEMU is another user, who has to pass it.
  mkdirSync(folder, { recursive: true, mode: libvirt === undefined ? 0o700 : 0o711 });
}
