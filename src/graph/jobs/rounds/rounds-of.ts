import type { DiskCopy } from '../../../block/index.js';
import { plan } from '../../../copy/index.js';
import type { JobControl } from '../../../job/index.js';
import type { Root } from '../../core/index.js';
import type { Wish } from '../group/index.js';
import type { ErrorPolicies } from './policies.js';
import { Rounds } from './rounds.js';

/** How the rounds of a job in a graph are made. */
interface LiveRoundsOptions {
  readonly copy: DiskCopy;
  /** Where the job reads status, and passes for each piece. */
  readonly root: Root;
  readonly control: JobControl;
  readonly policies: ErrorPolicies;
  /** Is told when the copy has news. */
  readonly wish: Wish;
}

/** The rounds of a job in a graph. No write goes to the target while the job is paused. */
export function roundsOf({ copy, root, control, policies, wish }: LiveRoundsOptions): Rounds {
  copy.isStopped = () => control.isPaused;
  copy.onNews = () => wish.tell();
  return new Rounds({
    ...{ copy, control, policies, size: root.size },
    pass: (work) => root.pass(work),
    // In the last round the gate of the root is shut; the edge leads past it.
    plan: (bitmap, isDrained) =>
      plan({
        source: isDrained ? root.edge : root,
        ...{ mode: 'incremental', bitmap, signal: control.ending },
      }),
  });
}
