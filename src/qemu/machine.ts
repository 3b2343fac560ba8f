import { resolve } from 'node:path';
import type { Job } from '../job/index.js';
import type { NbdServerAddress } from '../nbd/index.js';
import { Monitor, type QmpAddress } from '../qmp/index.js';
import { optionCheck } from '../util/index.js';
import { type DiskChoice, type MachineDisk, takeInventory } from './inspect/index.js';
import {
  checkMigrateOptions,
  checkMigratePlanOptions,
  type MigrateOptions,
  type MigratePlan,
  type MigratePlanOptions,
  type MigrateProgress,
  type MigrateReport,
  migrateMachine,
  planMigration,
  shortPlan,
} from './migrate/index.js';
import {
  checkMirrorOptions,
  type MirrorOptions,
  type MirrorProgress,
  type MirrorReport,
  mirrorMachine,
} from './mirror/index.js';
import {
  checkPopulateOptions,
  type MachinePopulateOptions,
  type MachinePopulateReport,
  populateMachine,
} from './populate/index.js';
import { recoverTarget, recoverWithoutGeneration } from './recover.js';
import {
  type BackupOptions,
  type BackupPlan,
  type BackupPlanOptions,
  type BackupSession,
  checkBackupOptions,
  checkPlanOptions,
  checkRecoverOptions,
  type FoundBackup,
  findInterrupted,
  planBackup,
  type RecoverOptions,
  type RecoverReport,
  startSession,
  type Target,
  type WantedBackup,
} from './session/index.js';
import { checkGeneration, generationIn, generationsInUse, SessionNames } from './state/index.js';
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
   * Makes dirty in bitmaps of the machine what is allocated in disks or layers, while the guest goes on: for when a bitmap is
   * missing or inconsistent, or a snapshot has begun a layer that has none. All that is allocated at the moment of the
   * merge, and all that is written meanwhile, is dirty then, in whole granules; a new bitmap records from that moment on.
   *
   * The targets get everything in one transaction, and a new one gets its name there: when it fails, or this process dies,
   * there is no bitmap that lacks something. What populates have left in the folder whose processes have died is taken away
   * first. Its progress are bytes of the sources whose status is known.
   *
   * @throws TypeError or RangeError for options that make no sense. The job rejects with LacunaError ERR_MACHINE_DISK;
   *   ERR_MACHINE_BUSY where something is in the way; ERR_BITMAP_INCONSISTENT, ERR_BITMAP_UNKNOWN, ERR_BITMAP_MISMATCH for what
   *   a bitmap is not; ERR_QMP_UNSUPPORTED; ERR_QMP_COMMAND where QEMU refuses a step; ERR_DEVICE_OPEN where the folder
   *   cannot be used; ERR_QCOW2_UNSUPPORTED where the bits take more than 512 MiB; ERR_JOB_STOPPED; ERR_ABORTED; what
   *   reading an export throws.
   */
  populate(options: MachinePopulateOptions): Job<MachinePopulateReport> {
    checkPopulateOptions(options);
    return populateMachine(this.#target, options, () => recoverWithoutGeneration(this.#target));
  }

  /**
   * What a migration would move, and what is in its way. Nothing is changed.
   *
   * @throws as {@link migrate}, before it changes anything.
   */
  async planMigration(options: MigratePlanOptions): Promise<MigratePlan> {
    checkMigratePlanOptions(options);
    await using destination = await Monitor.connect(options.destination, {
      signal: options.signal,
    });
    return shortPlan(await planMigration(this.#target, destination, options));
  }

  /**
   * Moves the machine to another QEMU, with its disks, by what a bitmap has marked: rounds, each from a view, while the guest goes
   * on; then the memory; then, while it stands still, what is left. In the end the machine runs on the destination, and the
   * source has ended. Images of qcow2 have the bitmap then, and the next increment begins from the same backup.
   *
   * Until the destination runs, `stop()`, a failure, or the death of this process lets the source go on with its own
   * disks: a process of its own sees to that. Never both run.
   *
   * @throws TypeError or RangeError for options that make no sense. The job rejects with LacunaError ERR_MACHINE_DISK;
   *   ERR_MACHINE_BUSY where something is in the way; ERR_BITMAP_UNKNOWN, ERR_BITMAP_INCONSISTENT, ERR_BITMAP_MISMATCH for
   *   what the bitmap is not; ERR_COPY_MISMATCH where sizes differ; ERR_QMP_UNSUPPORTED; ERR_VIEW_LOST, ERR_SCRATCH_FULL;
   *   ERR_MIGRATION_FAILED where the source goes on; ERR_MIGRATION_UNDECIDED where a person has to look; ERR_JOB_STOPPED;
   *   ERR_ABORTED; what opening and copying throw.
   */
  migrate(options: MigrateOptions): Job<MigrateReport, MigrateProgress> {
    checkMigrateOptions(options);
    return migrateMachine(this.#target, options, () => recoverWithoutGeneration(this.#target));
  }

  /**
   * Keeps a replica of a disk in step, while the guest goes on: QEMU hands on all that is written from now on, and what has
   * changed before is copied beside that. `stop()` ends it: once it is in step the job is then done, and the replica equals
   * the disk as it was at one moment; before, it rejects with ERR_JOB_STOPPED. Where it fails, is stopped early or dies, the
   * replica equals nothing, and the next mirror catches it up from the same bitmap.
   *
   * The guest never waits for the replica. `pause()` lets QEMU only note what is written. The rate is for what has changed
   * before. What mirrors have left in the folder whose processes have died is taken away first.
   *
   * @throws TypeError or RangeError for options that make no sense. The job rejects with LacunaError ERR_MIRROR_LOST where
   *   QEMU cannot write to the replica any more, or somebody has ended its job; ERR_REPLICA_MISMATCH where the state of the
   *   replica is of something else; ERR_BITMAP_UNKNOWN and ERR_BITMAP_INCONSISTENT where all of the disk must be copied;
   *   ERR_COPY_MISMATCH; ERR_MACHINE_DISK; ERR_MACHINE_BUSY; ERR_QMP_UNSUPPORTED; ERR_QMP_COMMAND; ERR_DEVICE_OPEN;
   *   ERR_JOB_STOPPED; ERR_ABORTED; what a copy throws.
   */
  mirror(options: MirrorOptions): Job<MirrorReport, MirrorProgress> {
    checkMirrorOptions(options);
    return mirrorMachine(this.#target, options, () => recoverWithoutGeneration(this.#target));
  }

  /**
   * Takes away what backups have left whose processes have died: exports, jobs, nodes, scratch images, sockets, and the
   * bitmaps that the newest manifest does not need. Sessions that are running are left alone. Call it before a backup.
   *
   * @throws TypeError; LacunaError ERR_MACHINE_LEFTOVERS where something does not go; what the monitor throws.
   */
  async recover(options: RecoverOptions): Promise<RecoverReport> {
    checkRecoverOptions('Machine.recover', options);
    return await recoverTarget(this.#target, options);
  }

  /** @internal Looks for a backup whose process has died and that can be gone on with; nothing is changed. */
  interrupted(wanted: WantedBackup): Promise<FoundBackup> {
    return findInterrupted(this.#target, wanted);
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

  /**
   * @internal Those that bitmaps count from and no session uses, each once; what is stored below a snapshot stays there, and
   * is not told.
   */
  async idleGenerations(): Promise<string[]> {
    const nodes = await this.monitor.execute('query-named-block-nodes');
    const written = nodes.filter(({ ro }) => !ro);
    const names = written.flatMap((node) => node['dirty-bitmaps'] ?? []);
    const found = new Set(names.flatMap(({ name = '' }) => generationIn(name) ?? []));
    // Asked last: a session has its journal before its bitmaps.
    const used = generationsInUse(this.#target.folder);
    return [...found].filter((generation) => !used.has(generation));
  }

  /** @internal What a manifest says of the machine. */
  async configuration(): Promise<object> {
    const { major, minor, micro } = this.monitor.version;
    return { qemu: `${major}.${minor}.${micro}` };
  }

  /** Ends the connection to the monitor. Sessions must have ended before. */
  async close(): Promise<void> {
    await this.monitor.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
