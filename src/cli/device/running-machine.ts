/** The flags of every command that reaches a running machine, and what they mean together. */
import { join } from 'node:path';
import type { Command } from 'commander';
import type { LibvirtMachine, Machine } from '../../qemu/index.js';
import type { Shell } from '../shell/index.js';
import { serverAddress } from './machine-disks.js';

/** How a running machine is reached. */
export interface MachineFlags {
  qmp?: string;
  libvirt?: string;
  connect?: string;
  agent?: string;
  nbd?: string;
  scratch?: string;
}

/** Adds them, apart from the agent; `what` is what the command does with the machine. */
export function addMachineFlags(command: Command, what: string): Command {
  return command
    .option('--qmp <socket>', `${what}: the socket of its monitor`)
    .option('--libvirt <domain>', `${what} of libvirt: its name, id or UUID`)
    .option('--connect <uri>', 'the libvirt of this host that has it (default: as virsh)')
    .option('--nbd <uri>', 'where the NBD server of that QEMU listens, if it runs one already')
    .option(
      '--scratch <folder>',
      'for what the guest overwrites meanwhile (default: sessions in the repository)',
    );
}

/** A machine that is yet to be connected. */
export interface ReachableMachine {
  /** Where its sessions are. */
  readonly folder: string;
  /** Changes nothing in the machine. */
  connect(shell: Pick<Shell, 'signal'>): Promise<Machine | LibvirtMachine>;
}

/**
 * Reads the flags, and does nothing yet.
 *
 * @param repository where sessions are, unless the flags say another folder
 * @throws TypeError for flags that do not go together, or that cannot be read
 */
export function reachMachine(flags: MachineFlags, repository: string): ReachableMachine {
  const { qmp, libvirt, connect, agent, nbd } = flags;
  const folder = flags.scratch ?? join(repository, 'sessions');
  if (libvirt !== undefined) {
    const other = Object.entries({ qmp, agent, nbd }).find(([, value]) => value !== undefined);
    if (other !== undefined) {
      throw new TypeError(`--${other[0]} does not go with --libvirt, which has the monitor`);
    }
    const options = { domain: libvirt, connect, folder };
    return {
      folder,
      connect: async ({ signal }) => (await qemu()).LibvirtMachine.find({ ...options, signal }),
    };
  }
  if (qmp === undefined)
    throw new TypeError('say which machine: --qmp SOCKET, or --libvirt DOMAIN');
  if (connect !== undefined) throw new TypeError('--connect goes with --libvirt');
  const options = {
    monitor: { path: qmp },
    folder,
    ...(agent !== undefined && { agent: { path: agent } }),
    ...(nbd !== undefined && { nbd: serverAddress(nbd) }),
  };
  return {
    folder,
    connect: async ({ signal }) => (await qemu()).Machine.connect({ ...options, signal }),
  };
}

/**
 * What the machine is called where it was started (`-name`).
 *
 * @throws TypeError where it has no name
 */
export async function nameOfMachine(machine: Machine | LibvirtMachine): Promise<string> {
  if (!('monitor' in machine)) return machine.name;
  const { monitor } = machine;
  if ((await monitor.schema()).has('query-name')) {
    const { name } = (await monitor.execute('query-name')) as { name?: unknown };
    if (typeof name === 'string' && name !== '') return name;
  }
  throw new TypeError('say what the machine is called (--machine NAME): it has no name of its own');
}

/** Loaded only by commands that need it. */
function qemu(): Promise<typeof import('../../qemu/index.js')> {
  return import('../../qemu/index.js');
}
