import type { JobControl, JobProgress } from '../../../job/index.js';
import { GraphJob, type GraphJobWork } from './graph-job.js';
import type { Wish } from './wish.js';

/** What a job that goes on until it is told to end does, and how it is told. */
export interface LiveJobOptions<Report, Progress extends JobProgress>
  extends GraphJobWork<Report, Progress> {
  readonly wish: Wish;
}

/**
 * A job that does not end by itself: when its target has caught up, it is *ready*, keeps the target up to date, and waits to be told to
 * complete or to be cancelled.
 */
export class LiveJob<Report, Progress extends JobProgress = JobProgress> extends GraphJob<
  Report,
  Progress
> {
  readonly #wish: Wish;

  /** @internal */
  constructor({ wish, ...work }: LiveJobOptions<Report, Progress>) {
    const withEnd = async (control: JobControl): Promise<Report> => {
      try {
        return await work.work(control);
      } finally {
        wish.end();
      }
    };
    super({ ...work, work: withEnd } as GraphJobWork<Report, Progress>);
    this.#wish = wish;
  }

  /**
   * Lets the target come into use, as soon as the job is ready, and ends the job: with all jobs of its group, and when it is finalized, if
   * that is to be done by hand. Resolves to its report.
   *
   * @throws what the job fails with. ERR_GRAPH_BUSY, ERR_GRAPH_CONFLICT, and what a bitmap that is carried refuses: nothing has changed
   * then, and the job goes on.
   */
  async complete(): Promise<Report> {
    await this.#wish.ask('complete');
    return this.then((report) => report);
  }

  /**
   * Ends the job; everybody goes on using what they use. One that is ready brings the target up to date first, so that this is a copy of
   * that moment, and resolves. One that is not, or with `force`, rejects with ERR_JOB_STOPPED, as after `stop`.
   *
   * @throws as {@link complete}
   */
  async cancel({ force = false }: { force?: boolean } = {}): Promise<void> {
    if (force || !this.isReady) {
      this.stop();
      await this.then(
        () => {},
        () => {},
      );
      return;
    }
    await this.#wish.ask('cancel');
    await this;
  }
}
