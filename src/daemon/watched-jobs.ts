import { isAbsolute } from 'node:path';
import type { Control } from './core/index.js';
import {
  type BackupWish,
  prepareBackup,
  type SteeredJob,
  type WatchedJob,
  type WatchedJobs,
} from './watch/index.js';

/** The jobs of a daemon, as its page shows them: those that clients have begun, and its own. */
export class DaemonWatchedJobs implements WatchedJobs {
  readonly #control: Control;

  constructor(control: Control) {
    this.#control = control;
  }

  list(): readonly WatchedJob[] {
    return this.#control.jobs.all.map(({ id, type, job }) => ({
      id,
      type,
      job: job as SteeredJob,
    }));
  }

  async startBackup(wish: BackupWish): Promise<WatchedJob> {
    const { graph, jobs } = this.#control;
    graph.node(wish.node);
    const prepared = await prepareBackup(graph, wish, this.#fileFor(wish.target));
    // Behind this nothing waits before the name is kept for it.
    const id = jobs.freeName('backup');
    const how = { autoFinalize: true, autoDismiss: false, speed: wish.rate ?? 0 };
    const listing = { id, type: 'backup', ...how } as const;
    try {
      await jobs.begin(listing, () => prepared.begin());
    } catch (error) {
      prepared.takeBack();
      throw error;
    }
    return this.list().find((one) => one.id === id)!;
  }

  dismiss(id: string): void {
    this.#control.jobs.job(id).dismiss();
  }

  /** What clients may not name, pages may not either. @throws RangeError */
  #fileFor(target: string): string {
    if (!isAbsolute(target)) {
      throw new RangeError(`${target} is not a whole path: begin it with /`);
    }
    try {
      return this.#control.files.check(target);
    } catch (error) {
      throw new RangeError((error as Error).message, { cause: error });
    }
  }
}
