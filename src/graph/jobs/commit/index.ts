import { checkRate, type JobControl } from '../../../job/index.js';
import type { Changer } from '../../core/index.js';
import { LiveJob } from '../rounds/index.js';
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
  /** @internal See `Graph.commit`. */
  constructor(changer: Changer, options: CommitJobOptions) {
    const run = new CommitRun(changer, checkCommitJob(options));
    const { rate, signal } = options;
    checkRate(rate);
    super({
      what: 'a commit',
      rate,
      signal,
      wish: run.wish,
      work: (control: JobControl) => run.work(control),
      counted: () => run.counted(),
    });
  }
}
