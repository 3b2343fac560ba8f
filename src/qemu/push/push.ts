/**
 * QEMU's own jobs write the views of all disks to a server of ours. The jobs read the views and never the disks, so a server
 * that is slow or gone is a failure of theirs, which the guest does not see.
 */
import { LacunaError } from '../../errors/index.js';
import { checkRate } from '../../job/index.js';
import type { Monitor, QmpNeeds } from '../../qmp/index.js';
import { counted } from '../../util/index.js';
import type { SessionNames } from '../state/index.js';
import { JobWatch, type ViewedDisk } from '../view/index.js';
import type { Landing } from './landing.js';
import { type PushProgress, Steering, speedOf } from './steering.js';

/** What QEMU must have beside what a view needs. */
export const PUSH_NEEDS: QmpNeeds = {
  'blockdev-add': ['driver.nbd', 'reconnect-delay'],
  'block-dirty-bitmap-add': ['disabled'],
  'block-dirty-bitmap-merge': [],
  'blockdev-backup': ['bitmap', 'bitmap-mode.never', 'sync.bitmap', 'sync.full', 'speed'],
  'block-job-set-speed': [],
  'job-pause': [],
  'job-resume': [],
};

/** Gives the scratch space of what was pushed back at once; from 9.1. */
const RELEASE: QmpNeeds = { 'blockdev-backup': ['discard-source'] };

/** QEMU holds back the writes of the guest for so long at most. */
const TRANSACTION_MS = 30_000;

export interface PushOptions {
  readonly monitor: Monitor;
  readonly names: SessionNames;
  readonly disks: readonly ViewedDisk[];
  readonly landing: Landing;
  /** Bytes per second, of all disks together. */
  readonly rate?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** QEMU's push of the disks of a session. What is changed once it has ended changes nothing. */
export interface SessionPush {
  /** How far it is: what has landed, of all disks together. */
  progress(): PushProgress;
  /**
   * Bytes per second that QEMU pushes at most from now on, of all disks together; undefined for as fast as it goes.
   *
   * @throws RangeError when it is not 1 or more.
   */
  setRate(bytesPerSecond: number | undefined): void;
  /** Lets QEMU begin nothing more until {@link resume}. The guest goes on, and pays for the view. */
  pause(): void;
  /** Lets QEMU go on. */
  resume(): void;
}

export class Push implements SessionPush {
  /** Resolves when everything has landed, and the files can be read; rejects with LacunaError ERR_PUSH_FAILED or ERR_SCRATCH_FULL. */
  readonly done: Promise<void>;
  readonly #given: PushOptions;
  readonly #watches: readonly JobWatch[];
  readonly #steering: Steering;
  #reject!: (failure: Error) => void;
  #resolve!: () => void;

  constructor(given: PushOptions) {
    this.#given = given;
    const { monitor, names, disks, rate } = given;
    this.done = new Promise<void>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Who waits for it is told; nobody may wait any more when it fails.
    this.done.catch(() => {});
    const failed = (why: string, cause?: unknown) => pushFailed(monitor.name, why, cause);
    const jobs = disks.map(({ index }) => names.pusher(index));
    this.#watches = jobs.map(
      (job) => new JobWatch(monitor, job, failed, (failure) => this.fail(failure)),
    );
    const refused = (why: string, cause: unknown) => this.fail(failed(why, cause));
    this.#steering = new Steering({ monitor, jobs, rate, failed: refused });
  }

  progress(): PushProgress {
    return this.#given.landing.progress;
  }

  setRate(bytesPerSecond: number | undefined): void {
    checkRate(bytesPerSecond);
    this.#steering.setRate(bytesPerSecond);
  }

  pause(): void {
    this.#steering.pause(true);
  }

  resume(): void {
    this.#steering.pause(false);
  }

  /** Gives it up: what QEMU could not write, says more than that its job has failed. */
  fail(failure: Error): void {
    const why = this.#given.landing.failure ?? failure;
    this.#stopWatching();
    const { name } = this.#given.monitor;
    const isTold = why instanceof LacunaError && why.code === 'ERR_SCRATCH_FULL';
    const isOurs = why instanceof LacunaError && why === failure && why.device === name;
    this.#reject(isTold || isOurs ? why : pushFailed(name, why.message, why));
  }

  /**
   * Begins; the views are there. Every command is sent once.
   *
   * @throws LacunaError ERR_PUSH_FAILED where the server is gone; what the monitor throws.
   */
  async begin(): Promise<void> {
    try {
      await this.#begin();
    } catch (error) {
      const { landing, monitor } = this.#given;
      // That QEMU cannot connect says nothing of why, and QEMU may know that the process is gone before this one has heard so.
      const why = await landing.settle().catch((failure: Error) => failure);
      if (why === undefined) throw error;
      throw pushFailed(monitor.name, why.message, error);
    }
  }

  async #begin(): Promise<void> {
    const { monitor, names, disks, landing, signal } = this.#given;
    for (const { index } of disks) {
      await monitor.execute(
        'blockdev-add',
        {
          driver: 'nbd',
          'node-name': names.outlet(index),
          server: { type: 'unix', path: landing.socket },
          export: String(index),
          // A server that is gone is not waited for.
          'reconnect-delay': 0,
        },
        { signal },
      );
    }
    const schema = await monitor.schema({ signal });
    const canRelease = schema.missing(RELEASE).length === 0;
    const actions = disks.map((disk) => this.#action(disk, canRelease));
    await monitor.execute('transaction', { actions }, { timeoutMs: TRANSACTION_MS });
    for (const watch of this.#watches) {
      watch.mayEnd();
      watch.start();
    }
    void this.#follow();
  }

  /** Ends the server, before anything that must not wait for it. */
  async close(): Promise<void> {
    this.fail(new LacunaError('ERR_ABORTED', 'Aborted: the push was given up'));
    await this.#given.landing.close();
  }

  async #follow(): Promise<void> {
    try {
      await Promise.all(this.#watches.map((watch) => this.#untilConcluded(watch)));
      await this.#given.landing.settle();
      this.#checkWhole();
      this.#stopWatching();
      // It has locked the files.
      await this.#given.landing.close();
      this.#resolve();
    } catch (error) {
      this.fail(error as Error);
    }
  }

  async #untilConcluded(watch: JobWatch): Promise<void> {
    await watch.until('concluded');
    this.#steering.ended(watch.job);
  }

  #stopWatching(): void {
    this.#steering.stop();
    for (const watch of this.#watches) watch.stop();
  }

  /** What a job has left out would be taken for what the disk held before: its own word that it is done is not enough. */
  #checkWhole(): void {
    const { landing, disks, monitor } = this.#given;
    for (const { index, plan } of disks) {
      const { missingBytes } = landing.ranges[index];
      if (missingBytes === 0) continue;
      const what = `its job for ${plan.disk.name} has ended, and ${counted(missingBytes, 'byte')} of it were not written`;
      throw pushFailed(monitor.name, what);
    }
  }

  #action({ index, plan }: ViewedDisk, canRelease: boolean): object {
    const { names, disks, rate } = this.#given;
    const isFull = plan.bitmap === undefined;
    const job = {
      'job-id': names.pusher(index),
      device: names.access(index),
      target: names.outlet(index),
      'filter-node-name': names.pushFilter(index),
      'auto-dismiss': false,
      'on-source-error': 'report',
      'on-target-error': 'report',
      ...(isFull
        ? { sync: 'full' }
        : { sync: 'bitmap', bitmap: names.dirty, 'bitmap-mode': 'never' }),
      ...(canRelease && { 'discard-source': true }),
      ...(rate !== undefined && { speed: speedOf(rate, disks.length) }),
    };
    return { type: 'blockdev-backup', data: job };
  }
}

function pushFailed(device: string, why: string, cause?: unknown): LacunaError {
  return new LacunaError(
    'ERR_PUSH_FAILED',
    `${device}: QEMU could not push the disks of the backup: ${why}. Nothing of it counts; the guest has not noticed, and the next backup begins from where this one began`,
    { device, cause, retryable: true },
  );
}
