import type { Command } from 'commander';
import type { FoundLock } from '../../../repository/index.js';
import { Exit, type Shell } from '../../shell/index.js';

interface UnlockFlags {
  machine?: string;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna unlock /backup
  lacuna unlock --machine web /backup

Locks of dead processes of this host need no unlocking. Those of other hosts do: be sure that nothing runs there.
The lock of a process that lives on this host stays, and the exit code is 3.`;

/** Tells commander what `lacuna unlock` takes, and what it does. */
export function registerUnlock(command: Command, shell: Shell): void {
  command
    .description('Removes locks on restore points whose holders are not known to live.')
    .argument('<repository>', 'the repository')
    .option('--machine <name>', 'only this machine')
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action((path: string, flags: UnlockFlags) => unlockCommand(path, flags, shell));
}

async function unlockCommand(path: string, flags: UnlockFlags, shell: Shell): Promise<void> {
  const { Repository } = await import('../../../repository/index.js');
  const repository = Repository.open(path);
  const machines = flags.machine === undefined ? repository.machines() : [flags.machine];
  const results = machines.map((machine) => ({ machine, ...repository.unlock(machine) }));
  if (results.some(({ kept }) => kept.length > 0)) shell.exitCode = Exit.leftOut;
  const text = results.flatMap(({ machine, removed, kept }) => [
    ...removed.map((found) => `${machine}: removed ${describe(found)}\n`),
    ...kept.map((found) => `${machine}: left ${describe(found)}, which lives\n`),
  ]);
  const told = text.length === 0 ? 'There were no locks.\n' : text.join('');
  await shell.print(flags.json ? `${JSON.stringify({ machines: results })}\n` : told);
}

function describe({ path, lock }: FoundLock): string {
  if (lock === undefined) return `${path}, which cannot be read`;
  const { purpose, pid, host, since } = lock;
  return `the lock of ${purpose}, process ${pid} on ${host.split(' ')[0]}, since ${since}`;
}
