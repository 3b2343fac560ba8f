import type { Command } from 'commander';
import type { LibvirtMachine, Machine, MachinePlan, RecoverReport } from '../../../qemu/index.js';
import type { Repository } from '../../../repository/index.js';
import {
  addMachineFlags,
  diskNamed,
  type MachineFlags,
  nameOfMachine,
  reachMachine,
} from '../../device/index.js';
import { collect, Exit, noteWarnings, printable, type Shell } from '../../shell/index.js';
import { describeMachinePlan } from '../../view/index.js';

interface RecoverFlags extends MachineFlags {
  machine?: string;
  disk?: string[];
  unknown?: boolean;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna recover --qmp /run/web.qmp /backup
  lacuna recover --libvirt web /backup
  lacuna recover --qmp /run/web.qmp --scratch /var/tmp/web /backup

A backup that was killed may have left jobs, exports, nodes, bitmaps and scratch images, and the guest goes on paying
for them. The next backup goes on with them or takes them away; this takes them away now. Say the same --scratch and
--machine as for the backup. A backup that is running is left alone. The exit code is 3 where something is left.`;

/** Tells commander what `lacuna recover` takes, and what it does. */
export function registerRecover(command: Command, shell: Shell): void {
  command
    .description(
      'Takes away what backups of a running machine have left whose processes have died, and tells what the next one will be.',
    )
    .argument('<repository>', 'the repository of the backups');
  addMachineFlags(command, 'a running machine')
    .option('--machine <name>', 'what it is called in the repository (default: its own name)')
    .option('--disk <name>', 'a disk that the next backup takes; may be repeated', collect)
    .option(
      '--unknown',
      'also what backups have left whose folder is not there; only while no other backup of the machine runs',
    )
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action((path: string, flags: RecoverFlags) => recoverCommand(path, flags, shell));
}

async function recoverCommand(path: string, flags: RecoverFlags, shell: Shell): Promise<void> {
  const reachable = reachMachine(flags, path);
  const { Repository } = await import('../../../repository/index.js');
  const { recoverMachine } = await import('../../../qemu/index.js');
  const repository = Repository.open(path);
  const machine = await reachable.connect(shell);
  try {
    const name = flags.machine ?? (await nameOfMachine(machine));
    const report = await recoverMachine(repository, machine, {
      machine: name,
      ...(flags.unknown && { unknown: true }),
    });
    const next = await planNext(repository, machine, name, flags);
    const warnings = [...report.warnings, ...next.warnings];
    if (warnings.length + report.unknown.length > 0) shell.exitCode = Exit.leftOut;
    const document = { machine: name, ...report, warnings, next: next.plan ?? null };
    const text = describe(name, report, reachable.folder, next.plan);
    await shell.print(flags.json ? `${JSON.stringify(document)}\n` : text);
    noteWarnings(warnings, shell);
  } finally {
    if ('close' in machine) await machine.close();
  }
}

/** That the next backup cannot be planned takes nothing from what was done. */
async function planNext(
  repository: Repository,
  machine: Machine | LibvirtMachine,
  name: string,
  { disk }: RecoverFlags,
): Promise<{ plan?: MachinePlan; warnings: string[] }> {
  const { planMachine } = await import('../../../qemu/index.js');
  const disks = disk?.map(diskNamed);
  try {
    return { plan: await planMachine(repository, machine, { machine: name, disks }), warnings: [] };
  } catch (error) {
    return { warnings: [`the next backup cannot be planned: ${(error as Error).message}`] };
  }
}

function describe(
  name: string,
  { recovered, removedGenerations, unknown, running }: RecoverReport,
  folder: string,
  plan: MachinePlan | undefined,
): string {
  const done = [
    ...recovered.map((prefix) => `Took away what the backup ${prefix} had left.\n`),
    ...removedGenerations.map((one) => `Removed the bitmaps of the generation ${one}.\n`),
  ];
  const left = [
    ...running.map((prefix) => `Left alone: the backup ${prefix}, which is running.\n`),
    ...unknown.map(
      (prefix) =>
        `Left alone: what ${prefix} has in the machine, whose folder is not in ${printable(folder)}; if no backup is running, say --unknown.\n`,
    ),
  ];
  const nothing = done.length + left.length === 0 ? ['Nothing was left by earlier backups.\n'] : [];
  const lines = [...done, ...left, ...nothing];
  if (plan === undefined) return lines.join('');
  const over = plan.parent === null ? 'the first restore point' : `over ${name}/${plan.parent}`;
  return `${lines.join('')}The next backup of ${printable(name)}, ${over}:\n${describeMachinePlan(plan)}`;
}
