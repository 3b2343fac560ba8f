import { LacunaError } from '../../errors/index.js';
import type { Monitor, TypedEvent } from '../../qmp/index.js';
import type { SessionNames } from '../state/index.js';
import { EventWatch, isSound } from '../view/index.js';

/** Events that tell of the end of a view. */
const EVENTS = ['JOB_STATUS_CHANGE', 'BLOCK_WRITE_THRESHOLD'] as const;
/** What is told as it is. */
const OWN: ReadonlySet<string> = new Set(['ERR_VIEW_LOST', 'ERR_SCRATCH_FULL']);

type WatchedEvent = TypedEvent<(typeof EVENTS)[number]>;

/** Looks whether the jobs that hold a view still run, and learns of their end by events. */
export class ViewWatch {
  readonly #monitor: Monitor;
  readonly #names: SessionNames;
  readonly #disks: number;
  readonly #lost: (failure: LacunaError) => void;
  readonly #watch: EventWatch<(typeof EVENTS)[number]>;

  constructor(
    monitor: Monitor,
    names: SessionNames,
    disks: number,
    lost: (failure: LacunaError) => void,
  ) {
    this.#monitor = monitor;
    this.#names = names;
    this.#disks = disks;
    this.#lost = lost;
    this.#watch = new EventWatch({
      ...{ monitor, events: EVENTS },
      catchUp: async (wasDeaf) => {
        if (wasDeaf) await this.catchUp();
      },
      hear: (event) => this.#hear(event),
      lost: (error) =>
        lost(
          error instanceof LacunaError && OWN.has(error.code)
            ? error
            : viewLost(monitor.name, 'QEMU does not answer any more', error),
        ),
    });
  }

  /** Listens from now on, before there is anything to hear. */
  start(): void {
    this.#watch.start();
  }

  stop(): void {
    this.#watch.stop();
  }

  /**
   * Asks QEMU; over a new connection where the old one is lost.
   *
   * @throws LacunaError ERR_VIEW_LOST
   */
  async check(): Promise<void> {
    const jobs = await this.#jobs();
    for (let disk = 0; disk < this.#disks; disk++) {
      const job = jobs.find(({ id }) => id === this.#names.job(disk));
      if (job !== undefined && isSound(job.status)) continue;
      const how = job === undefined ? 'is gone' : `is ${job.status}`;
      throw viewLost(this.#monitor.name, `its job "${this.#names.job(disk)}" ${how}`);
    }
  }

  /**
   * Asks QEMU for what events would have told since the view was made.
   *
   * @throws LacunaError ERR_VIEW_LOST, ERR_SCRATCH_FULL; what the monitor throws
   */
  async catchUp(): Promise<void> {
    await this.check();
    const nodes = await this.#monitor.execute('query-named-block-nodes');
    for (let disk = 0; disk < this.#disks; disk++) {
      const name = this.#names.scratchFile(disk);
      const node = nodes.find((one) => one['node-name'] === name);
      // QEMU takes a threshold away when it tells of it.
      if (node?.write_threshold === 0) throw scratchFull(this.#monitor.name);
    }
  }

  async #jobs() {
    for (;;) {
      try {
        return await this.#monitor.execute('query-jobs');
      } catch (cause) {
        if (!(cause instanceof LacunaError) || this.#monitor.isConnected) throw cause;
        try {
          await this.#monitor.reconnect();
        } catch (failure) {
          throw viewLost(this.#monitor.name, 'QEMU does not answer any more', failure);
        }
      }
    }
  }

  #hear(event: WatchedEvent): void {
    if (event.event === 'BLOCK_WRITE_THRESHOLD') {
      if (!this.#names.owns(event.data['node-name'])) return;
      this.#lost(scratchFull(this.#monitor.name));
      return;
    }
    const { id, status } = event.data;
    if (!this.#names.holdsView(id) || isSound(status)) return;
    this.#lost(viewLost(this.#monitor.name, `its job "${id}" is ${status}`));
  }
}

function viewLost(device: string, why: string, cause?: unknown): LacunaError {
  return new LacunaError(
    'ERR_VIEW_LOST',
    `${device}: the view of the backup's point in time was lost: ${why}; nothing that was read of it counts, so call fail() and begin again`,
    { device, cause, retryable: true },
  );
}

function scratchFull(device: string): LacunaError {
  return new LacunaError(
    'ERR_SCRATCH_FULL',
    `${device}: the guest overwrites more than the scratch images may hold, so the backup was given up; allow more (scratchBytes), or read faster`,
    { device, retryable: true },
  );
}
