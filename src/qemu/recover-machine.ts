import type { Repository } from '../repository/index.js';
import { checkGiven, optionCheck } from '../util/index.js';
import { baseOf } from './generation.js';
import type { LibvirtMachine } from './libvirt/index.js';
import type { Machine } from './machine.js';
import type { RecoverReport } from './session/index.js';

/** What is taken away of backups that have died. */
export interface MachineRecoverOptions {
  /** What the machine is called in the repository. */
  readonly machine: string;
  /**
   * Take away as well what sessions have left whose folders are not in the machine's folder, because it was lost or is
   * elsewhere. Only for when no other backup of the machine is running. Default false.
   */
  readonly unknown?: boolean;
}

const checkOptions = optionCheck<MachineRecoverOptions>({
  machine: { needed: 'what the machine is called in the repository' },
  unknown: 'flag',
});

/**
 * Takes away what backups into a repository have left in a machine, and in its folder, whose processes have died: as
 * `Machine.recover` does, with the generation of the machine's newest point. `backupMachine` begins with it; call this to
 * free the machine before. `planMachine` tells what the next backup will be.
 *
 * @throws TypeError for options that make no sense; what `Machine.recover` throws; what reading the repository throws.
 */
export async function recoverMachine(
  repository: Repository,
  machine: Machine | LibvirtMachine,
  options: MachineRecoverOptions,
): Promise<RecoverReport> {
  checkGiven('recoverMachine', 'repository', repository, 'an open Repository');
  checkGiven('recoverMachine', 'machine', machine, 'a connected Machine, or a LibvirtMachine');
  checkOptions('recoverMachine', options);
  repository.checkBackup({ machine: options.machine });
  const generation = baseOf(repository, options.machine) ?? null;
  return await machine.recover({ generation, ...(options.unknown && { unknown: true }) });
}
