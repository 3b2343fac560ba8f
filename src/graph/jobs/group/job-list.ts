import type { GraphJob } from './graph-job.js';

/** The jobs of a graph, and what else lasts: all of it ends with the graph. */
export class JobList {
  readonly #jobs = new Set<GraphJob<unknown>>();
  readonly #lasting = new Set<() => Promise<unknown>>();

  /** In the order in which they began. Those that have ended are among them until they are dismissed. */
  get jobs(): readonly GraphJob<unknown>[] {
    return [...this.#jobs];
  }

  /** End what has not ended, and wait for that. */
  get lasting(): readonly (() => Promise<unknown>)[] {
    return [...this.#lasting];
  }

  add<One extends GraphJob<unknown>>(job: One): One {
    // A job of a graph counts as awaited: its failure is no unhandled rejection.
    const ended = job.then(nothing, nothing);
    this.#jobs.add(job);
    job.onDismissed = () => this.#jobs.delete(job);
    this.keep(() => {
      job.stop();
      return ended;
    }, ended);
    void ended.then(() => {
      if (job.autoDismiss) job.dismiss();
    });
    return job;
  }

  /** @param end ends it. @param ended resolves when it has ended. */
  keep(end: () => Promise<unknown>, ended: Promise<unknown>): void {
    this.#lasting.add(end);
    const forget = () => this.#lasting.delete(end);
    ended.then(forget, forget);
  }
}

function nothing(): void {}
