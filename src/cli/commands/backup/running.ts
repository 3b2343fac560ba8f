/** `lacuna backup --qmp` and `--libvirt`: a running machine. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { parseNbdUri } from '../../../nbd/address/index.js';
import type {
  FreezePolicy,
  LibvirtMachine,
  Machine,
  MachineBackupOptions,
  MachinePlan,
} from '../../../qemu/index.js';
import type { BackupReport } from '../../../repository/index.js';
import { diskNamed } from '../../device/index.js';
import { noteWarnings, printable, type Shell } from '../../shell/index.js';
import { formatBytes } from '../../text/index.js';
import { showRepositoryJob } from '../../view/index.js';

export interface MachineFlags {
  qmp?: string;
  libvirt?: string;
  connect?: string;
  agent?: string;
  freeze?: string;
  nbd?: string;
  scratch?: string;
}

/** The flags of the command that have a meaning here. */
interface RunningFlags extends MachineFlags {
  machine?: string;
  disk?: string[];
  full?: boolean;
  tag?: string[];
  compress?: boolean | string;
  maxChain?: number;
  plan?: boolean;
  rate?: number;
  threads?: number;
  json?: boolean;
}

export function addMachineFlags(command: Command): Command {
  return command
    .option('--qmp <socket>', 'back up a running machine: the socket of its monitor')
    .option('--libvirt <domain>', 'back up a running machine of libvirt: its name, id or UUID')
    .option('--connect <uri>', 'the libvirt of this host that has it (default: as virsh)')
    .option(
      '--agent <socket>',
      'the socket of its guest agent, which freezes the file systems for a moment',
    )
    .option(
      '--freeze <policy>',
      'require: no backup without a freeze; try (default with --agent); off',
    )
    .option('--nbd <uri>', 'where the NBD server of that QEMU listens, if it runs one already')
    .option(
      '--scratch <folder>',
      'for what the guest overwrites meanwhile (default: sessions in the repository)',
    );
}

/** @throws TypeError for a flag that is for running machines alone */
export function checkNoMachineFlags(flags: MachineFlags): void {
  const given = (['agent', 'freeze', 'nbd', 'scratch', 'connect'] as const).find(
    (name) => flags[name] !== undefined,
  );
  if (given === undefined) return;
  const which = given === 'connect' ? '--libvirt' : '--qmp';
  throw new TypeError(`--${given} goes with ${which}, for a running machine`);
}

/** @throws TypeError */
export function compressionOf(type: true | string): 'deflate' | 'zstd' {
  if (type === true) return 'deflate';
  if (type === 'deflate' || type === 'zstd') return type;
  throw new TypeError(`--compress is deflate or zstd, not ${type}`);
}

/** Backs the machine up; with `--plan` only tells, and with `--json` prints the report itself. */
export async function backupRunning(
  path: string,
  flags: RunningFlags,
  shell: Shell,
): Promise<BackupReport | undefined> {
  const { Repository } = await import('../../../repository/index.js');
  const { backupMachine, planMachine } = await import('../../../qemu/index.js');
  const { plan, json } = flags;
  const repository = Repository.open(path, plan ? { absent: true } : { create: true });
  const folder = flags.scratch ?? join(path, 'sessions');
  // libvirt's QEMU is another user, who has to pass it.
  const mode = flags.libvirt === undefined ? 0o700 : 0o711;
  if (!plan) mkdirSync(folder, { recursive: true, mode });
  const machine = await machineOf(flags, folder, shell);
  try {
    const options = await optionsOf(machine, flags);
    if (plan) {
      const { machine: name, disks, full } = options;
      const planned = await planMachine(repository, machine, { machine: name, disks, full });
      await shell.print(json ? `${JSON.stringify(planned)}\n` : describePlan(planned));
      return undefined;
    }
    const job = backupMachine(repository, machine, { ...options, rate: flags.rate });
    const report = await showRepositoryJob(job, shell);
    noteWarnings(report.warnings, shell);
    if (json) await shell.print(`${JSON.stringify(report)}\n`);
    return report;
  } finally {
    if ('close' in machine) await machine.close();
  }
}

/** @throws TypeError for flags that do not go together */
async function machineOf(
  { qmp, libvirt, connect, agent, nbd }: RunningFlags,
  folder: string,
  { signal }: Shell,
): Promise<Machine | LibvirtMachine> {
  const { LibvirtMachine, Machine } = await import('../../../qemu/index.js');
  if (libvirt !== undefined) {
    const other = Object.entries({ qmp, agent, nbd }).find(([, value]) => value !== undefined);
    if (other !== undefined) {
      throw new TypeError(`--${other[0]} does not go with --libvirt, which has the monitor`);
    }
    return await LibvirtMachine.find({ domain: libvirt, connect, folder, signal });
  }
  if (connect !== undefined) throw new TypeError('--connect goes with --libvirt');
  return await Machine.connect({
    monitor: { path: qmp! },
    folder,
    ...(agent !== undefined && { agent: { path: agent } }),
    ...(nbd !== undefined && { nbd: parseNbdUri(nbd).server }),
    signal,
  });
}

async function optionsOf(
  machine: Machine | LibvirtMachine,
  flags: RunningFlags,
): Promise<MachineBackupOptions> {
  const { disk, full, tag, compress, maxChain, threads, freeze } = flags;
  return {
    machine: flags.machine ?? (await nameOf(machine)),
    ...(disk && { disks: disk.map(diskNamed) }),
    ...(full && { full }),
    ...(tag && { tags: tag }),
    ...(compress && { compress: compressionOf(compress) }),
    ...(maxChain !== undefined && { longestChain: maxChain }),
    ...(threads !== undefined && { threads }),
    ...(freeze !== undefined && { freeze: freeze as FreezePolicy }),
  };
}

/** What the machine is called where it was started (`-name`). */
async function nameOf(machine: Machine | LibvirtMachine): Promise<string> {
  if (!('monitor' in machine)) return machine.name;
  const { monitor } = machine;
  if ((await monitor.schema()).has('query-name')) {
    const { name } = (await monitor.execute('query-name')) as { name?: unknown };
    if (typeof name === 'string' && name !== '') return name;
  }
  throw new TypeError('say what the machine is called (--machine NAME): it has no name of its own');
}

function describePlan({ disks, view, obstacles, parent, scratchFreeBytes }: MachinePlan): string {
  const lines = disks.map(({ disk, mode, reason, dirtyBytes = 0 }) => {
    const over = parent === null ? 'all of it' : `what has other digests than point ${parent}`;
    const what =
      mode === 'incremental' ? `what has changed (${formatBytes(dirtyBytes)} dirty)` : over;
    const because = mode === 'incremental' ? '' : 'because ';
    return `${printable(disk.name)}: ${what}, ${because}${reason}. Disk: ${printable(disk.file)}\n`;
  });
  const free = `Held by ${view === 'access' ? 'snapshot-access' : 'an overlay'}; ${formatBytes(scratchFreeBytes)} are free for scratch images.\n`;
  const inTheWay = obstacles.map((obstacle) => `In the way: ${obstacle}.\n`);
  return [...lines, free, ...inTheWay].join('');
}
