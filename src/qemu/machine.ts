import { resolve } from 'node:path';
import type { NbdServerAddress } from '../nbd/index.js';
import { Monitor, type QmpAddress } from '../qmp/index.js';
import { optionCheck } from '../util/index.js';
import { type DiskChoice, type MachineDisk, takeInventory } from './inspect/index.js';
import { type RecoverOptions, type RecoverReport, recoverTarget } from './recover.js';
import {
  type BackupOptions,
  type BackupPlan,
  type BackupPlanOptions,
  type BackupSession,
  checkBackupOptions,
  checkPlanOptions,
  planBackup,
  startSession,
  type Target,
} from './session/index.js';
import { checkGeneration, SessionNames } from './state/index.js';
import { Teardown } from './view/index.js';

/** How a machine is reached. */
export interface MachineOptions {
  /** Its monitor (`-qmp`, or `-mon mode=control`), which nobody else may use meanwhile. */
  readonly monitor: QmpAddress;
  /** The socket of its guest agent; without it nothing is frozen. */
  readonly agent?: QmpAddress | undefined;
  /**
   * Where the NBD server of this QEMU listens, if it runs one already. By default it is started for each backup, in the
   * session's own folder.
   */
  readonly nbd?: NbdServerAddress | undefined;
  /**
   * A folder of this host where sessions keep their journals and scratch images. QEMU must be able to open files that only
   * this user may open, so it runs as the same user, or as root.
   */
  readonly folder: string;
  /** Milliseconds for connecting. Default 10,000. */
  readonly timeoutMs?: number | undefined;
  /** Fires to end connecting; afterwards it has no effect. */
  readonly signal?: AbortSignal | undefined;
}

const checkOptions = optionCheck<MachineOptions>({
  monitor: { needed: 'the path of the socket of its monitor, or a host and a port' },
  agent: 'any',
  nbd: 'any',
  folder: { needed: 'a folder for journals and scratch images' },
  timeoutMs: 'any',
  signal: 'signal',
});

const checkRecover = optionCheck<RecoverOptions>({
  generation: { needed: 'that of the newest manifest, or null where there is none' },
  unknown: 'flag',
});

/**
 * A running machine, or a qemu-storage-daemon, that is backed up through its monitor:
 *
 *     const machine = await Machine.connect({ monitor: { path: '/run/vm.qmp' }, folder: '/var/lib/backups' });
 *     const session = await machine.backup({ base: manifest?.generation });
 */
export class Machine implements AsyncDisposable {
  /** Its monitor. */
  readonly monitor: Monitor;
  readonly #target: Target;

  /**
   * Connects to its monitor; nothing is changed.
   *
   * @throws TypeError for options that make no sense; what `Monitor.connect` throws.
   */
  static async connect(options: MachineOptions): Promise<Machine> {
    checkOptions('Machine.connect', options);
    const { monitor: address, agent, nbd, folder, timeoutMs, signal } = options;
    const monitor = await Monitor.connect(address, { timeoutMs, signal });
    return new Machine({ monitor, address, agent, nbd, folder: resolve(folder) });
  }

  private constructor(target: Target) {
    this.monitor = target.monitor;
    this.#target = target;
  }

  /**
   * Its disks: all that it can write, or those that are chosen.
   *
   * @throws LacunaError ERR_MACHINE_DISK; what the monitor throws.
   */
  async inspect(disks?: readonly DiskChoice[]): Promise<MachineDisk[]> {
    return (await takeInventory(this.monitor, disks)).disks;
  }

  /**
   * What a backup would do with each disk, exactly why, and what is in the way. Nothing is changed.
   *
   * @throws TypeError for options that make no sense. LacunaError ERR_MACHINE_DISK; ERR_QMP_UNSUPPORTED where QEMU lacks what is
   *   needed; ERR_DEVICE_OPEN where the folder cannot be used; what the monitor throws.
   */
  async plan(options: BackupPlanOptions = {}): Promise<BackupPlan> {
    checkPlanOptions(options);
    return await planBackup(this.#target, options);
  }

  /**
   * Begins a backup: from here on its disks can be read as they were at one moment, while the guest goes on. It must be
   * finished or failed. When it cannot begin, everything is undone before the error is thrown.
   *
   * @throws as {@link plan}; LacunaError ERR_MACHINE_BUSY where something is in the way; ERR_AGENT_ABSENT and what
   *   `GuestAgent.freeze` throws where a freeze is required; ERR_MACHINE_FROZEN where the guest does not thaw;
   *   ERR_QMP_COMMAND where QEMU refuses a step.
   */
  async backup(options: BackupOptions = {}): Promise<BackupSession> {
    checkBackupOptions(options);
    return await startSession(this.#target, options);
  }

  /**
   * Takes away what backups have left whose processes have died: exports, jobs, nodes, scratch images, sockets, and the
   * bitmaps that the newest manifest does not need. Sessions that are running are left alone. Call it before a backup.
   *
   * @throws TypeError; LacunaError ERR_MACHINE_LEFTOVERS where something does not go; what the monitor throws.
   */
  async recover(options: RecoverOptions): Promise<RecoverReport> {
    checkRecover('Machine.recover', options);
    if (options.generation !== null) checkGeneration('Machine.recover', options.generation);
    return await recoverTarget(this.#target, options);
  }

  /**
   * Removes the bitmaps of a generation from all disks. The next backup that would have begun from it is full.
   *
   * @throws TypeError; LacunaError ERR_MACHINE_LEFTOVERS; what the monitor throws.
   */
  async forget(generation: string): Promise<void> {
    checkGeneration('Machine.forget', generation);
    await new Teardown(this.monitor, SessionNames.random()).removeBitmaps(generation);
  }

  /** Ends the connection to the monitor. Sessions must have ended before. */
  async close(): Promise<void> {
    await this.monitor.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
