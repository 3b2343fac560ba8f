/** Backs up a running machine into a repository. */
import { randomBytes } from 'node:crypto';
import type { Bitmap } from '../bitmap/index.js';
import { Job, type JobControl, type JobCounts, type PartJob } from '../job/index.js';
import type {
  BackupReport,
  BackupOptions as PointOptions,
  Repository,
  RepositoryProgress,
} from '../repository/index.js';
import { checkGiven, joinSignals, optionCheck } from '../util/index.js';
import { baseOf, generationOf, newestOf } from './generation.js';
import { GoingOn } from './going-on.js';
import { type BackupHooks, betweenHooks } from './hooks.js';
import { checkKeepBitmaps, forgetOlder } from './kept-bitmaps.js';
import type { DomainPlan, LibvirtMachine } from './libvirt/index.js';
import type { Machine } from './machine.js';
import type { SessionPush } from './push/index.js';
import { type BackupOptions, type BackupSession, noteLeft } from './session/index.js';

/** How a running machine is backed up into a repository. */
export interface MachineBackupOptions
  extends Pick<
      PointOptions,
      | 'machine'
      | 'tags'
      | 'configuration'
      | 'compress'
      | 'longestChain'
      | 'threads'
      | 'rate'
      | 'signal'
    >,
    Pick<
      BackupOptions,
      | 'disks'
      | 'freeze'
      | 'freezeTimeoutMs'
      | 'freezeDeadlineMs'
      | 'scratchBytes'
      | 'view'
      | 'fetch'
    >,
    BackupHooks {
  /** Take all of every disk, even where an increment could be taken. Default false. */
  readonly full?: boolean;
  /**
   * How many of the newest points keep their bitmaps in the machine, from 1 to 100: where newer ones are pruned, the next
   * backup is an increment over the newest that is left. Each costs QEMU memory, and time with each write. Default 1.
   */
  readonly keepBitmaps?: number | undefined;
}

const checkOptions = optionCheck<MachineBackupOptions>({
  machine: { needed: 'what the machine is called in the repository' },
  tags: 'any',
  configuration: 'any',
  compress: 'any',
  longestChain: 'any',
  threads: 'any',
  rate: 'any',
  signal: 'signal',
  disks: 'any',
  freeze: 'any',
  freezeTimeoutMs: 'any',
  freezeDeadlineMs: 'any',
  scratchBytes: 'any',
  view: 'any',
  fetch: 'any',
  full: 'flag',
  keepBitmaps: 'any',
  before: 'callback',
  after: 'callback',
});

const checkPlanned = optionCheck<Parameters<typeof planMachine>[2]>({
  machine: { needed: 'what the machine is called in the repository' },
  disks: 'any',
  view: 'any',
  fetch: 'any',
  full: 'flag',
  signal: 'signal',
});

/**
 * Makes a restore point of a running machine: its disks at one moment, as an increment over the newest point where the bitmaps of
 * the machine know what has changed, else by comparing digests, else in full. What earlier backups have left in the machine
 * is taken away first. The point exists when this resolves. When this rejects, there is no new point, and the next
 * backup begins from where this one began.
 *
 * @throws TypeError or RangeError for options that make no sense. The job rejects with what `Machine.backup` and `Repository.backup` throw;
 *   ERR_VIEW_LOST and ERR_SCRATCH_FULL where what was read does not count.
 */
export function backupMachine(
  repository: Repository,
  machine: Machine | LibvirtMachine,
  options: MachineBackupOptions,
): Job<BackupReport, RepositoryProgress> {
  checkGiven('backupMachine', 'repository', repository, 'an open Repository');
  checkGiven('backupMachine', 'machine', machine, 'a connected Machine, or a LibvirtMachine');
  checkOptions('backupMachine', options);
  checkKeepBitmaps('backupMachine', options.keepBitmaps);
  repository.checkBackup(options);
  const backup = new MachineBackup(repository, machine, options);
  const { rate, signal } = options;
  return new Job({
    what: 'a backup of a running machine',
    ...{ rate, signal },
    work: (control) => backup.run(control),
    counted: () => backup.counted(),
  });
}

/** What a backup into a repository would do. */
export interface MachinePlan extends DomainPlan {
  /** The number of the newest point, over which increments are taken; null if the machine has no points. */
  readonly parent: number | null;
}

/**
 * Says what {@link backupMachine} would do with each disk, and why. Nothing is changed. A disk that the machine's bitmaps know
 * nothing of is compared with its digests, where the newest point has it.
 *
 * @throws what `Machine.plan` throws; what reading the repository throws.
 */
export async function planMachine(
  repository: Repository,
  machine: Machine | LibvirtMachine,
  options: Pick<MachineBackupOptions, 'machine' | 'disks' | 'view' | 'fetch' | 'full' | 'signal'>,
): Promise<MachinePlan> {
  checkGiven('planMachine', 'repository', repository, 'an open Repository');
  checkGiven('planMachine', 'machine', machine, 'a connected Machine, or a LibvirtMachine');
  checkPlanned('planMachine', options);
  repository.checkBackup({ machine: options.machine });
  const { disks, view, fetch, full, signal } = options;
  const newest = newestOf(repository, options.machine);
  const base = newest === undefined ? undefined : generationOf(repository.id, newest.id);
  const plan = await machine.plan({
    disks,
    view,
    fetch,
    signal,
    base,
    mode: full ? 'full' : 'auto',
  });
  return { ...plan, parent: newest?.number ?? null };
}

class MachineBackup {
  readonly #repository: Repository;
  readonly #machine: Machine | LibvirtMachine;
  readonly #options: MachineBackupOptions;
  readonly #changes: Bitmap[] = [];
  #storing: Job<BackupReport, RepositoryProgress> | undefined;
  #push: SessionPush | undefined;

  constructor(
    repository: Repository,
    machine: Machine | LibvirtMachine,
    options: MachineBackupOptions,
  ) {
    this.#repository = repository;
    this.#machine = machine;
    this.#options = options;
  }

  counted(): JobCounts<RepositoryProgress> {
    const { machine } = this.#options;
    const none = { machine, point: 0, disk: '', doneBytes: 0, totalBytes: 0 };
    const stored = this.#storing?.progress() ?? { ...none, step: 'prepare' };
    const pushed = this.#push?.progress();
    if (pushed === undefined) return stored;
    // Nothing is stored before all has landed.
    if (pushed.doneBytes < pushed.totalBytes) return { ...none, ...pushed, step: 'push' };
    return {
      ...stored,
      doneBytes: stored.doneBytes + pushed.doneBytes,
      totalBytes: stored.totalBytes + pushed.totalBytes,
    };
  }

  async run(control: JobControl): Promise<BackupReport> {
    const base = baseOf(this.#repository, this.#options.machine);
    const subject = { repository: this.#repository, machine: this.#machine, base };
    const goingOn = await GoingOn.look({ ...subject, options: this.#options }, control.ending);
    try {
      const recovered = await this.#machine.recover({ generation: base ?? null });
      const hooks = { ...this.#options, before: () => this.#before(goingOn, control) };
      const report = await betweenHooks(hooks, async () => {
        const { warnings, ...made } = await this.#backUp(base, goingOn, control);
        return { ...made, warnings: [...warnings, ...(await this.#forgetOlder())] };
      });
      const warnings = [...recovered.warnings, ...goingOn.warnings, ...report.warnings];
      return { ...report, warnings: [...new Set(warnings)] };
    } finally {
      goingOn.leave();
    }
  }

  /** Nothing stays in the machine where this is all that is done. */
  async #before(goingOn: GoingOn, control: JobControl): Promise<void> {
    try {
      await this.#options.before?.();
      control.throwIfEnding();
    } catch (error) {
      await goingOn.giveUp().catch((left) => noteLeft(error as Error, left));
      throw error;
    }
  }

  async #backUp(
    base: string | undefined,
    goingOn: GoingOn,
    control: JobControl,
  ): Promise<BackupReport> {
    const earlier = await goingOn.open();
    const id = earlier?.id ?? randomBytes(8).toString('hex');
    const session = earlier?.session ?? (await this.#begin(id, base, control.ending));
    this.#push = session.push;
    let report: BackupReport;
    try {
      const notes = earlier?.notes ?? (await goingOn.begin(session));
      report = await this.#store(session, { id, notes }, control);
    } catch (error) {
      // Why the view was lost says more than that it was read in vain.
      const why = (session.lost ?? error) as Error;
      await session.fail().catch((left: Error) => {
        noteLeft(why, left);
      });
      throw why;
    } finally {
      for (const changes of this.#changes) changes.free();
    }
    // The manifest is durable.
    const finished = await session.finish(() => {});
    const warnings = [...session.warnings, ...report.warnings, ...finished.warnings];
    return { ...report, warnings };
  }

  /** The point exists: what cannot be removed is no failure of its. */
  async #forgetOlder(): Promise<string[]> {
    const { machine: name, keepBitmaps: count = 1 } = this.#options;
    try {
      await forgetOlder(this.#machine, { repository: this.#repository, name, count });
      return [];
    } catch (error) {
      return [`bitmaps of older points stay in the machine: ${(error as Error).message}`];
    }
  }

  #begin(id: string, base: string | undefined, signal: AbortSignal): Promise<BackupSession> {
    const { disks, freeze, freezeTimeoutMs, freezeDeadlineMs, scratchBytes } = this.#options;
    const { view, fetch, full, rate, keepBitmaps = 1 } = this.#options;
    return this.#machine.backup({
      ...{ disks, freeze, freezeTimeoutMs, freezeDeadlineMs, scratchBytes, view, fetch },
      ...{ base, signal, ...(fetch === 'push' && rate && { pushRate: rate }) },
      generation: generationOf(this.#repository.id, id),
      mode: full ? 'full' : 'auto',
      keepBase: keepBitmaps > 1,
    });
  }

  async #store(
    session: BackupSession,
    { id, notes }: { id: string; notes: string | undefined },
    control: JobControl,
  ): Promise<BackupReport> {
    const { machine, tags, compress, longestChain, threads, full } = this.#options;
    // What waits for QEMU to push has nothing in flight that could be finished.
    const ended = session.push === undefined ? control.signal : control.ending;
    const joined = joinSignals(ended, session.signal);
    this.#storing = this.#repository.backup({
      ...{ machine, id, time: session.point.time, bitmaps: false },
      ...(notes !== undefined && { notes }),
      configuration: this.#options.configuration ?? (await this.#configuration(session)),
      disks: session.disks.map((disk) => ({
        name: disk.name,
        source: disk.device,
        // Known only since the point that the session began from.
        changes: async ({ id: parent }) => {
          if (session.point.base !== generationOf(this.#repository.id, parent)) return undefined;
          const changes = await disk.changes();
          if (changes !== undefined) this.#changes.push(changes);
          return changes;
        },
      })),
      ...(full && { full }),
      ...(tags && { tags }),
      ...(compress && { compress }),
      ...(longestChain !== undefined && { longestChain }),
      ...(threads !== undefined && { threads }),
      beforeCommit: async () => void (await session.accept()),
      signal: joined.signal,
    });
    try {
      return await control.run(steeredWith(this.#storing, session.push));
    } finally {
      joined.release();
    }
  }

  /** What is known of the machine from here. */
  async #configuration({ point }: BackupSession): Promise<object> {
    const { time, frozen, disks } = point;
    return {
      ...(await this.#machine.configuration()),
      ...{ time, frozen },
      disks: disks.map(({ name, qdev, file, reason }) => ({
        ...{ name, file, reason },
        ...(qdev !== undefined && { qdev }),
      })),
    };
  }
}

/** Storing begins when all has landed, so that each of the two may have the whole rate. */
function steeredWith<Report>(
  storing: Job<Report, RepositoryProgress>,
  push: SessionPush | undefined,
): PartJob<Report> {
  if (push === undefined) return storing;
  const both = [storing, push];
  return {
    pause() {
      for (const one of both) one.pause();
    },
    resume() {
      for (const one of both) one.resume();
    },
    setRate(bytesPerSecond) {
      for (const one of both) one.setRate(bytesPerSecond);
    },
    stop: () => storing.stop(),
    on: (event, listener) => storing.on(event, listener),
    // biome-ignore lint/suspicious/noThenProperty: it stands for the job that stores.
    then: (done, failed) => storing.then(done, failed),
  };
}
