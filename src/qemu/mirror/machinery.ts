/** What a mirror has in QEMU: a node for the replica, the job that mirrors, and an export of the disk as it changes. */
import type { LacunaError } from '../../errors/index.js';
import type { NbdServerAddress } from '../../nbd/index.js';
import { Serial } from '../../util/index.js';
import { journalOf, type Target } from '../session/index.js';
import { type Journal, SessionFolder, SessionNames, writeJournal } from '../state/index.js';
import { JobWatch, Teardown, ViewMaker } from '../view/index.js';
import { mirrorLost } from './mirror-lost.js';
import type { MirrorPlan } from './plan-mirror.js';

/** All names of a session have the number of the disk. */
const DISK = 0;
/** Bytes: QEMU hands on whole granules, and the end of the disk. */
const GRANULARITY = 64 * 1024;
/** What QEMU calls a job that is paused, before it is in step and after. */
const PAUSED: ReadonlySet<string> = new Set(['paused', 'standby']);
/** QEMU holds back the writes of the guest for so long at most. */
const TRANSACTION_MS = 30_000;

export class MirrorMachinery {
  readonly watch: JobWatch;
  readonly #target: Target;
  readonly #plan: MirrorPlan;
  readonly #names: SessionNames;
  readonly #teardown: Teardown;
  readonly #folder: SessionFolder;
  readonly #journal: Journal;
  readonly #pausing = new Serial();
  #isToPause = false;
  #isPaused = false;
  #isOver = false;

  /** Its journal says whose names they are before any of it is there. */
  static async create(
    target: Target,
    plan: MirrorPlan,
    lost: (failure: LacunaError) => void,
  ): Promise<MirrorMachinery> {
    const names = SessionNames.random();
    const folder = await SessionFolder.create(target.folder, names.prefix);
    const machinery = new MirrorMachinery(target, plan, { names, folder, lost });
    try {
      await writeJournal(folder.path, machinery.#journal);
    } catch (error) {
      // Nothing of it is in QEMU yet.
      folder.remove();
      throw error;
    }
    return machinery;
  }

  private constructor(
    target: Target,
    plan: MirrorPlan,
    made: { names: SessionNames; folder: SessionFolder; lost: (failure: LacunaError) => void },
  ) {
    const { names, folder, lost } = made;
    const { monitor } = target;
    this.#target = target;
    this.#plan = plan;
    this.#names = names;
    this.#folder = folder;
    this.#teardown = new Teardown(monitor, names);
    // Which bitmaps stay is decided by the state of the replica.
    this.#journal = journalOf(target, names, folder, [plan.disk]);
    const failed = (why: string, cause?: unknown) => mirrorLost(monitor.name, why, cause);
    this.watch = new JobWatch(monitor, names.job(DISK), failed, lost);
  }

  /** Where the replica is served unless somebody says otherwise. */
  get replicaSocket(): NbdServerAddress {
    return { type: 'unix', path: this.#folder.outSocket };
  }

  /** The disk as it changes, with a copy of the bitmap that does not. */
  get source(): { server: NbdServerAddress; name: string; context: string | undefined } {
    const { bitmap } = this.#plan;
    const context = bitmap && `qemu:dirty-bitmap:${this.#names.recording(DISK)}`;
    return { server: this.#journal.nbd.server, name: this.#names.export(DISK), context };
  }

  /**
   * The mirror first: all that is written behind it, it hands on. Then what the bitmap marks, which is therefore enough.
   * A server that is gone is an error of the job's, at once and nothing more: it is neither waited for (`reconnect-delay`)
   * nor told to the guest.
   */
  async begin(replica: object, signal: AbortSignal): Promise<void> {
    const { monitor } = this.#target;
    const names = this.#names;
    const { disk } = this.#plan;
    const { server, isOurs } = this.#journal.nbd;
    if (isOurs) await new ViewMaker(monitor, names, 'overlay', signal).startServer(server);
    await monitor.execute(
      'blockdev-add',
      { ...replica, 'node-name': names.outlet(DISK), 'reconnect-delay': 0 },
      { signal },
    );
    await monitor.execute(
      'blockdev-mirror',
      {
        'job-id': names.job(DISK),
        device: disk.top,
        target: names.outlet(DISK),
        sync: 'none',
        granularity: GRANULARITY,
        'copy-mode': 'background',
        'on-source-error': 'report',
        'on-target-error': 'report',
        'filter-node-name': names.filter(DISK),
        'auto-dismiss': false,
      },
      { signal },
    );
    this.watch.start();
    await this.#exportDisk(signal);
  }

  /** Until now nothing is lost when the mirror ends: what is written from here on, this bitmap marks. */
  async addBitmap(name: string): Promise<void> {
    const { node, canPersist: persistent } = this.#plan.disk;
    const { monitor } = this.#target;
    await monitor.executeOnce(
      'block-dirty-bitmap-add',
      { node, name, persistent },
      { isDone: () => this.#hasBitmap(name) },
    );
  }

  async removeBitmap(name: string): Promise<void> {
    const { node } = this.#plan.disk;
    if (!(await this.#hasBitmap(name))) return;
    await this.#target.monitor.executeOnce(
      'block-dirty-bitmap-remove',
      { node, name },
      { isDone: async () => !(await this.#hasBitmap(name)) },
    );
  }

  /** Ends the mirror at a moment at which the replica has everything. */
  async endMirror(): Promise<void> {
    const { monitor } = this.#target;
    await this.pause(false);
    await this.watch.until('ready');
    this.watch.mayEnd();
    const ended = this.watch.until('concluded');
    try {
      await monitor.executeOnce(
        'block-job-cancel',
        { device: this.#names.job(DISK), force: false },
        { isDone: async () => (await this.#job())?.status === 'concluded' },
      );
    } catch (refusal) {
      // A job that has just failed refuses it, before its events tell why.
      await this.watch.look().catch(() => {});
      throw refusal;
    }
    await ended;
    this.watch.stop();
  }

  /** Lets QEMU hand on nothing for a while; it goes on to note what the guest writes. */
  async pause(isPaused: boolean): Promise<void> {
    this.#isToPause = isPaused;
    // A job that is not there yet is paused once it is; one that is gone is told of by the watch.
    await this.#pausing.run(() => this.#steer()).catch(() => {});
  }

  /** Takes away everything but the named bitmaps. Taking it away again is harmless. */
  async takeDown(): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    this.watch.stop();
    if (this.watch.isQemuGone) {
      this.#folder.leave();
      return;
    }
    try {
      await this.#teardown.run();
      await this.#teardown.endServer(this.#journal.nbd);
    } catch (error) {
      this.#folder.leave();
      throw error;
    }
    this.#folder.remove();
  }

  async #exportDisk(signal: AbortSignal): Promise<void> {
    const { monitor } = this.#target;
    const { bitmap } = this.#plan;
    const { node } = this.#plan.disk;
    const frozen = { node, name: this.#names.recording(DISK) };
    if (bitmap !== undefined) {
      const { granularity, name } = bitmap;
      const bitmaps = [{ node, name }];
      const actions = [
        { type: 'block-dirty-bitmap-add', data: { ...frozen, granularity, disabled: true } },
        { type: 'block-dirty-bitmap-merge', data: { node, target: frozen.name, bitmaps } },
      ];
      await monitor.execute('transaction', { actions }, { timeoutMs: TRANSACTION_MS });
    }
    const id = this.#names.export(DISK);
    await monitor.execute(
      'block-export-add',
      {
        ...{ type: 'nbd', id, 'node-name': node, name: id },
        ...(bitmap !== undefined && { bitmaps: [frozen] }),
      },
      { signal },
    );
  }

  /** Pauses the job or lets it go on, as was asked for last; what somebody else has paused is left to them. */
  async #steer(): Promise<void> {
    const isPaused = this.#isToPause;
    if (this.#isPaused === isPaused) return;
    await this.#target.monitor.executeOnce(
      isPaused ? 'block-job-pause' : 'block-job-resume',
      { device: this.#names.job(DISK) },
      { isDone: async () => PAUSED.has((await this.#job())?.status ?? '') === isPaused },
    );
    this.#isPaused = isPaused;
  }

  async #job() {
    const jobs = await this.#target.monitor.execute('query-jobs');
    return jobs.find(({ id }) => id === this.#names.job(DISK));
  }

  async #hasBitmap(name: string): Promise<boolean> {
    const nodes = await this.#target.monitor.execute('query-named-block-nodes');
    const node = nodes.find((one) => one['node-name'] === this.#plan.disk.node);
    return node?.['dirty-bitmaps']?.some((one) => one.name === name) ?? false;
  }
}
