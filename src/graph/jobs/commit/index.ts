import { checkRate, type JobControl } from '../../../job/index.js';
import type { Changer } from '../../core/index.js';
import { beginAlone, JobGroup, type JobPart, LiveJob } from '../group/index.js';
import { CommitRun } from './commit-run.js';
import {
  type CommitJobOptions,
  type CommitJobProgress,
  type CommitJobReport,
  checkCommitJob,
} from './options.js';

export type { CommitJobOptions, CommitJobProgress, CommitJobReport } from './options.js';

/**
 * Puts images of a chain into the one below them. Where the uppermost is written, it goes on until it is told to complete or to be
 * cancelled; else it ends by itself.
 */
export class CommitJob extends LiveJob<CommitJobReport, CommitJobProgress> {
  /** @internal See `Graph.commit`. @param begin what happens before its work, unless that was done. */
  constructor(
    run: CommitRun,
    { rate, signal, autoFinalize, autoDismiss }: CommitJobOptions,
    group: JobGroup,
    begin?: () => Promise<void>,
  ) {
    const member = group.join(autoFinalize);
    const work = async (control: JobControl) => {
      await begin?.();
      return run.work(control, member);
    };
    super({
      ...{ what: 'a commit', rate, signal, autoDismiss, member, work, wish: run.wish },
      counted: () => run.counted(),
      hasBegun: begin === undefined,
    });
    member.stop = () => this.stop();
  }
}

/** Begins a commit job; see `Graph.commit`. */
export function commit(changer: Changer, options: CommitJobOptions): CommitJob {
  const run = runOf(changer, options);
  return new CommitJob(run, options, new JobGroup(changer), () => beginAlone(changer, run));
}

/** A commit job that begins in a transaction. */
export function commitPart(changer: Changer, options: CommitJobOptions): JobPart<CommitJob> {
  const run = runOf(changer, options);
  return {
    signal: options.signal,
    prepare: () => run.prepare(),
    takeBack: () => run.takeBack(),
    start: (group) => new CommitJob(run, options, group),
  };
}

function runOf(changer: Changer, options: CommitJobOptions): CommitRun {
  const checked = checkCommitJob(options);
  checkRate(options.rate);
  return new CommitRun(changer, checked);
}
