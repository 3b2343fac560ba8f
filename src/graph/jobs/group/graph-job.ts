import {
  JOB_OPTIONS,
  Job,
  type JobOptions,
  type JobProgress,
  type JobWork,
} from '../../../job/index.js';
import type { GroupMember } from './job-group.js';

/** What every job of a graph can be told when it begins. */
export interface GraphJobOptions extends JobOptions {
  /**
   * Whether it ends by itself when its work is done. If not, it is `pending` then, until `finalize()`; a mirror, or a commit of what is
   * written, goes on keeping its target up to date. Default true.
   */
  readonly autoFinalize?: boolean;
  /** Whether it leaves `Graph.jobs` by itself when it has ended; if not, it does so by `dismiss()`. Default true. */
  readonly autoDismiss?: boolean;
}

/** The same for the check of options. */
export const GRAPH_JOB_OPTIONS = {
  ...JOB_OPTIONS,
  autoFinalize: 'flag',
  autoDismiss: 'flag',
} as const;

/** What a job of a graph does, and with whom it ends. */
export interface GraphJobWork<Report, Progress extends JobProgress = JobProgress>
  extends JobWork<Report, Progress> {
  /** Absent where nothing of it waits to be told. */
  readonly member?: GroupMember;
  readonly autoDismiss: boolean | undefined;
}

/** A job of a graph: its end may wait for somebody who finalizes it, and it is listed until somebody dismisses it. */
export class GraphJob<Report, Progress extends JobProgress = JobProgress> extends Job<
  Report,
  Progress
> {
  /** @internal */
  readonly autoDismiss: boolean;
  /** @internal Is told when the job is dismissed. */
  onDismissed: () => void = () => {};
  readonly #member: GroupMember | undefined;

  /** @internal */
  constructor({ member, autoDismiss = true, ...work }: GraphJobWork<Report, Progress>) {
    super(work as JobWork<Report, Progress>);
    this.#member = member;
    this.autoDismiss = autoDismiss;
  }

  /**
   * Lets the job end as soon as it is `pending`, and with it all jobs of its group; harmless where it ends by itself. Resolves to its report.
   *
   * @throws what the job fails with. ERR_GRAPH_BUSY, ERR_GRAPH_CONFLICT, and what a bitmap that is carried refuses: nothing has changed
   * then, and the job is pending again.
   */
  async finalize(): Promise<Report> {
    // One that could not even begin is told of by itself.
    const ended = this.then(nothing, nothing);
    await Promise.race([this.#member?.finalize() ?? ended, ended]);
    return this.then((report) => report);
  }

  /**
   * Takes a job that has ended out of `Graph.jobs`; harmless where it is not there any more.
   *
   * @throws TypeError where it has not ended.
   */
  dismiss(): void {
    const { state } = this;
    if (state !== 'done' && state !== 'failed' && state !== 'stopped') {
      throw new TypeError(`the job is ${state}: dismiss it when it has ended`);
    }
    this.onDismissed();
  }
}

function nothing(): void {}
