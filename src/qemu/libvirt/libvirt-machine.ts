import { resolve } from 'node:path';
import { optionCheck } from '../../util/index.js';
import type { DiskChoice, DiskInfo } from '../inspect/index.js';
import {
  type BackupOptions,
  type BackupPlanOptions,
  type BackupSession,
  checkBackupOptions,
  checkPlanOptions,
  checkRecoverOptions,
  type FoundBackup,
  type RecoverOptions,
  type RecoverReport,
} from '../session/index.js';
import { checkGeneration, checkpointOf, generationIn, generationsInUse } from '../state/index.js';
import { chooseDisks, readDefinition } from './disks.js';
import { Domain } from './domain.js';
import { dropCheckpoint } from './kept-checkpoints.js';
import { type DomainPlan, planDomain } from './plan.js';
import { recoverDomain } from './recover.js';
import { startDomainSession } from './start.js';

/** How a domain of libvirt's is reached. */
export interface LibvirtMachineOptions {
  /** Its name, id or UUID. */
  readonly domain: string;
  /** The URI of the libvirt of this host, such as `qemu:///system`. Default: the one that `virsh` takes. */
  readonly connect?: string | undefined;
  /**
   * A folder of this host where sessions keep their journals and scratch images. The user that QEMU runs as must be able to pass
   * it; scratch images are given to that user.
   */
  readonly folder: string;
  /** Fires to end the search for it; afterwards it has no effect. */
  readonly signal?: AbortSignal | undefined;
}

const checkOptions = optionCheck<LibvirtMachineOptions>({
  domain: { needed: 'the name, id or UUID of a domain' },
  connect: 'any',
  folder: { needed: 'a folder for journals and scratch images' },
  signal: 'signal',
});

/**
 * A running machine that libvirt owns, backed up through libvirt's own backups and checkpoints, with the same sessions as a
 * `Machine`:
 *
 *     const machine = await LibvirtMachine.find({ domain: 'web', folder: '/var/lib/backups' });
 *     const session = await machine.backup({ base: manifest?.generation });
 */
export class LibvirtMachine {
  readonly #domain: Domain;
  readonly #folder: string;

  /**
   * Looks for it; nothing is changed.
   *
   * @throws TypeError for options that make no sense, and for the URI of another host: scratch images and the socket are on this
   *   one. LacunaError ERR_LIBVIRT where libvirt does not know it, or cannot be reached.
   */
  static async find(options: LibvirtMachineOptions): Promise<LibvirtMachine> {
    checkOptions('LibvirtMachine.find', options);
    const { connect, domain, folder, signal } = options;
    checkConnect(connect);
    return new LibvirtMachine(await Domain.find(connect, domain, signal), resolve(folder));
  }

  private constructor(domain: Domain, folder: string) {
    this.#domain = domain;
    this.#folder = folder;
  }

  /** Its name in libvirt. */
  get name(): string {
    return this.#domain.name;
  }

  /**
   * Its disks: all that it can write, or those that are chosen by their names, such as `vda`.
   *
   * @throws TypeError for a choice by a node. LacunaError ERR_MACHINE_DISK, ERR_LIBVIRT
   */
  async inspect(disks?: readonly DiskChoice[]): Promise<DiskInfo[]> {
    return chooseDisks(await readDefinition(this.#domain), disks, this.name);
  }

  /**
   * What a backup would do with each disk, exactly why, and what is in the way. Nothing is changed. A transient domain's checkpoint
   * that libvirt has forgotten counts only after {@link recover}.
   *
   * @throws TypeError for options that make no sense. LacunaError ERR_MACHINE_DISK; ERR_QMP_UNSUPPORTED for another view than
   *   an overlay; ERR_DEVICE_OPEN where the folder cannot be used; ERR_LIBVIRT.
   */
  async plan(options: BackupPlanOptions = {}): Promise<DomainPlan> {
    checkPlanOptions(options, 'LibvirtMachine.plan');
    return (await planDomain(this.#domain, this.#folder, options)).plan;
  }

  /**
   * Begins a backup: from here on its disks can be read as they were at one moment, while the guest goes on. It must be
   * finished or failed. When it cannot begin, everything is undone before the error is thrown.
   *
   * @throws as {@link plan}; LacunaError ERR_MACHINE_BUSY where something is in the way; ERR_AGENT_ABSENT where a freeze is required;
   *   ERR_MACHINE_FROZEN where the guest does not thaw; ERR_LIBVIRT where libvirt refuses a step.
   */
  async backup(options: BackupOptions = {}): Promise<BackupSession> {
    checkBackupOptions(options, 'LibvirtMachine.backup');
    return await startDomainSession(this.#domain, this.#folder, options);
  }

  /**
   * Takes away what backups have left whose processes have died: the backup in libvirt, scratch images, and the checkpoint that
   * the newest manifest does not need. Sessions that are running are left alone. Call it before a backup.
   *
   * @throws TypeError; LacunaError ERR_MACHINE_LEFTOVERS where something does not go; ERR_LIBVIRT.
   */
  async recover(options: RecoverOptions): Promise<RecoverReport> {
    checkRecoverOptions('LibvirtMachine.recover', options);
    return await recoverDomain(this.#domain, this.#folder, options);
  }

  /** @internal Backups through libvirt are never gone on with: what they have left is taken away. */
  async interrupted(): Promise<FoundBackup> {
    return {};
  }

  /**
   * Removes the checkpoint of a generation. The next backup that would have begun from it is full.
   *
   * @throws TypeError; LacunaError ERR_MACHINE_LEFTOVERS, ERR_LIBVIRT
   */
  async forget(generation: string): Promise<void> {
    checkGeneration('LibvirtMachine.forget', generation);
    await this.#domain.deleteCheckpoint(checkpointOf(generation));
    dropCheckpoint(this.#domain, this.#folder, generation);
  }

  /** @internal Those that checkpoints count from and no session uses. */
  async idleGenerations(): Promise<string[]> {
    const found = (await this.#domain.checkpoints()).flatMap((name) => generationIn(name) ?? []);
    // Asked last: a session has its journal before its checkpoint.
    const used = generationsInUse(this.#folder);
    return found.filter((generation) => !used.has(generation));
  }

  /** @internal What a manifest says of the machine: what libvirt would need to define it again. */
  async configuration(): Promise<object> {
    return { libvirt: { ...this.#domain.address, definition: await this.#domain.xml() } };
  }
}

/** Another host would make the scratch images and the socket there. */
function checkConnect(connect: string | undefined): void {
  if (connect === undefined || /^[a-z]+(\+unix)?:\/\/\//.test(connect)) return;
  throw new TypeError(
    `LibvirtMachine.find: connect must be the URI of a libvirt of this host, such as "qemu:///system", not ${JSON.stringify(connect)}: run the backup on the host of the machine`,
  );
}
