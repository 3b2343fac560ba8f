import type { Job } from '../job/index.js';
import { checkGiven, optionCheck } from '../util/index.js';
import {
  type BackupOptions,
  type BackupReport,
  backup,
  checkPointOptions,
  type DiskPlan,
  planBackup,
} from './backup/index.js';
import { type DiffOptions, type DiffReport, diff } from './diff/index.js';
import { type FoundLock, locksOf, unlock } from './lock/index.js';
import type { Manifest } from './manifest/index.js';
import { type PointName, selectPoint } from './points/index.js';
import { type PruneOptions, type PruneReport, prune } from './prune/index.js';
import { type RestoreOptions, type RestoreReport, restore } from './restore/index.js';
import { type ServedPoint, type ServePointOptions, serve } from './serve/index.js';
import { Store, type StoreOptions } from './store/index.js';
import {
  type VerifiedTimes,
  type VerifyOptions,
  type VerifyReport,
  verifiedTimes,
  verify,
} from './verify/index.js';
import type { RepositoryProgress } from './work/index.js';

/** How a repository is opened. */
export interface OpenRepositoryOptions {
  /** Make one where the folder is not there, or empty. Default false. */
  readonly create?: boolean;
  /** Where one would be made, take it for one that is empty, and make nothing: for `plan`. Default false. */
  readonly absent?: boolean;
}

const checkOpen = optionCheck<OpenRepositoryOptions>({ create: 'flag', absent: 'flag' });

/** A machine and its restore points. */
export interface MachineList {
  /** Its name. */
  readonly machine: string;
  /** Oldest first. */
  readonly points: readonly Manifest[];
  /** What is wrong with files that should be manifests. */
  readonly problems: readonly Error[];
}

/**
 * A folder of restore points, each of which can be restored on its own, with this package or with any tool that reads
 * qcow2. docs/repository.md says how it is laid out, and what holds after a crash.
 *
 *     const repository = Repository.open('/backup', { create: true });
 *     await repository.backup({ machine: 'web', disks: [{ name: 'vda', source: 'vda.qcow2' }] });
 */
export class Repository {
  readonly #store: Store;

  /**
   * Opens a repository.
   *
   * @throws LacunaError ERR_REPOSITORY_FORMAT if the folder is not a repository, or of a newer version; ERR_REPOSITORY_DAMAGED;
   * ERR_REPOSITORY_FILE.
   */
  static open(path: string, options: OpenRepositoryOptions = {}): Repository {
    checkGiven('Repository.open', 'path', path, 'the path of a folder');
    checkOpen('Repository.open', options);
    return new Repository(Store.open(path, options));
  }

  /** @internal For tests that stop between two changes. */
  static openWith(path: string, options: StoreOptions): Repository {
    return new Repository(Store.open(path, options));
  }

  private constructor(store: Store) {
    this.#store = store;
  }

  /** The folder. */
  get path(): string {
    return this.#store.path;
  }

  /** What tells it from all others; copies of it have the same. */
  get id(): string {
    return this.#store.id;
  }

  /** The machines in it, by name. */
  machines(): string[] {
    return this.#store.machines();
  }

  /**
   * The restore points of one machine, or of all.
   *
   * @throws LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_FORMAT, ERR_REPOSITORY_FILE
   */
  points(machine?: string): MachineList[] {
    if (machine !== undefined) this.#store.checkMachine(machine);
    const machines = machine === undefined ? this.machines() : [machine];
    return machines.map((name) => {
      const { points, problems } = this.#store.points(name);
      return { machine: name, points, problems };
    });
  }

  /** @internal The newest point of a machine, found without a look at all of them where that can be. */
  newest(machine: string): Manifest | undefined {
    return (this.#store.newestChain(machine) ?? this.#store.points(machine)).newest;
  }

  /**
   * Finds a point: by its number, `latest`, or a time, of the only machine, or of one that is named with it as in `web/7`.
   *
   * @throws TypeError for what names no point; LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_DAMAGED.
   */
  find(point: PointName, machine?: string): Manifest {
    return selectPoint(this.#store, point, machine).manifest;
  }

  /**
   * Says what a backup would do with each disk, and why; nothing is changed.
   *
   * @throws what opening the sources throws.
   */
  plan(options: BackupOptions): Promise<DiskPlan[]> {
    return planBackup(this.#store, options);
  }

  /**
   * Makes a restore point of disks at rest. It exists when this resolves. When this rejects, there is no new point, and
   * nothing is left of it.
   *
   * @throws TypeError or RangeError for options that make no sense; LacunaError ERR_REPOSITORY_LOCKED,
   * ERR_REPOSITORY_CHANGED, ERR_REPOSITORY_FILE, ERR_ABORTED; what opening and copying the sources throws.
   */
  backup(options: BackupOptions): Job<BackupReport, RepositoryProgress> {
    return backup(this.#store, options);
  }

  /** @internal Throws what `backup` would throw, but for the disks: a running machine need not be frozen for it. */
  checkBackup(options: Omit<BackupOptions, 'disks'>): void {
    checkPointOptions(options);
  }

  /**
   * Restores disks. Everything that is read is compared with the digests of the point: the first difference ends it, and
   * a file that is not whole does not get its name.
   *
   * @throws LacunaError ERR_REPOSITORY_DAMAGED with the place, ERR_POINT_UNKNOWN, ERR_REPOSITORY_LOCKED, ERR_ABORTED; what
   * copying throws.
   */
  restore(options: RestoreOptions): Job<RestoreReport, RepositoryProgress> {
    return restore(this.#store, options);
  }

  /**
   * Looks whether everything is what it was when it was written: manifests, parents, every byte of every file, and what the
   * images show. What it finds is in the report; it fails only where it cannot look.
   *
   * @throws TypeError or RangeError for options that make no sense; LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_LOCKED,
   * ERR_REPOSITORY_FILE, ERR_ABORTED.
   */
  verify(options: VerifyOptions = {}): Job<VerifyReport, RepositoryProgress> {
    return verify(this.#store, options);
  }

  /** When points of a machine were verified last, by `id`, in ISO 8601. */
  verified(machine: string): VerifiedTimes {
    return verifiedTimes(this.#store, machine);
  }

  /**
   * Removes the points that no rule keeps, and merges what those that stay need of them. It may be killed at any
   * moment: every point that is listed can be restored, and the next run goes on.
   *
   * @throws TypeError or RangeError for options that make no sense; LacunaError ERR_REPOSITORY_LOCKED while
   * somebody reads or serves a point, ERR_REPOSITORY_DAMAGED with the place, ERR_REPOSITORY_FILE, ERR_ABORTED.
   */
  prune(options: PruneOptions): Job<PruneReport, RepositoryProgress> {
    return prune(this.#store, options);
  }

  /**
   * Makes a server of the disks of a point: read-only, with every block checked, or with an overlay that takes what clients
   * write. What is read through an overlay is not compared with digests. Close it when it is done.
   *
   * @throws TypeError for options that make no sense; LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_DAMAGED,
   * ERR_REPOSITORY_LOCKED, ERR_IMAGE_CHAIN where an overlay lies over something else; what opening throws.
   */
  serve(options: ServePointOptions): Promise<ServedPoint> {
    return serve(this.#store, options);
  }

  /**
   * Tells what changed between two points of a machine, by their digests alone.
   *
   * @throws TypeError for points of two machines; LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_DAMAGED,
   * ERR_REPOSITORY_LOCKED, ERR_ABORTED.
   */
  diff(options: DiffOptions): Promise<DiffReport> {
    return diff(this.#store, options);
  }

  /** The locks on the points of a machine. */
  locks(machine: string): FoundLock[] {
    return locksOf(this.#store.places(machine));
  }

  /**
   * Removes locks that are not known to be held by a living process of this host. Make sure that their holders are dead.
   *
   * @throws LacunaError ERR_REPOSITORY_FILE
   */
  unlock(machine: string): { removed: FoundLock[]; kept: FoundLock[] } {
    this.#store.checkMachine(machine);
    return unlock(this.#store.places(machine));
  }
}
