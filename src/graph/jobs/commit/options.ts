import { type BackingName, checkBacking } from '../../../block/index.js';
import type { DetectZeroes } from '../../../copy/index.js';
import type { JobProgress } from '../../../job/index.js';
import { optionCheck } from '../../../util/index.js';
import { GRAPH_JOB_OPTIONS, type GraphJobOptions } from '../group/index.js';

/** A commit job. */
export interface CommitJobOptions extends GraphJobOptions {
  /**
   * The image on top of those that are put into the base, by the name of its node. Filters may lie above it. Where somebody may write it,
   * the job goes on until it is told to end.
   */
  readonly node: string;
  /** The image below that gets what the others hold; it is opened for writing, and made as large as the node. */
  readonly base: string;
  /** The name of the base as it shall stand in images above the node. Default: as the image above the base names it. */
  readonly backing?: BackingName;
  /** The base is known to read as zero. Default false. */
  readonly targetIsZero?: boolean;
  /** Data that is nothing but zeroes is zeroed in the base, with `unmap` as a hole. Default `off`. */
  readonly detectZeroes?: DetectZeroes;
  /** What happens when the images cannot be read: `report`, the job fails; `stop`, it waits for a human. Default `report`. */
  readonly onSourceError?: 'report' | 'stop';
  /** What happens when the base cannot be written. Default `report`. */
  readonly onTargetError?: 'report' | 'stop';
}

/** A moment of a commit job. */
export interface CommitJobProgress extends JobProgress {
  /** Whether the base has caught up with a node that is written; from then on it is kept up to date. */
  isReady: boolean;
  /** Bytes that were written and are not copied yet, beside those of the round that goes on. */
  dirtyBytes: number;
}

/** Result of a commit job. */
export interface CommitJobReport {
  /** Whether the base is used in place of the node from then on. */
  readonly completed: boolean;
  /** Bytes that the job has read and written. */
  readonly movedBytes: number;
  /** Bytes of the base that the job has zeroed. */
  readonly zeroedBytes: number;
  /** The bitmaps of the images that the base keeps now. */
  readonly bitmaps: readonly string[];
  /** Images and filters that the chain does not have any more, and that were closed. */
  readonly dropped: readonly string[];
  /** What a person should know although it succeeded. */
  readonly warnings: readonly string[];
}

const check = optionCheck<CommitJobOptions>({
  ...GRAPH_JOB_OPTIONS,
  node: { needed: 'the name of the image that is put into its base' },
  base: { needed: 'the name of the image below that gets it' },
  backing: 'any',
  targetIsZero: 'flag',
  detectZeroes: 'any',
  onSourceError: 'any',
  onTargetError: 'any',
});

const POLICIES: readonly unknown[] = ['report', 'stop'];
const DETECT: readonly unknown[] = ['off', 'on', 'unmap'];

/** Options with everything said. */
export type CheckedCommit = Required<Omit<CommitJobOptions, 'backing' | keyof GraphJobOptions>> &
  Pick<CommitJobOptions, 'backing'>;

/** @throws TypeError for options that make no sense. */
export function checkCommitJob(options: CommitJobOptions): CheckedCommit {
  check('Graph.commit', options);
  const { node, base, backing, onSourceError = 'report', onTargetError = 'report' } = options;
  for (const [key, name] of Object.entries({ node, base })) {
    if (typeof name === 'string') continue;
    throw new TypeError(`${key} must be the name of a node, not ${JSON.stringify(name)}`);
  }
  if (backing !== undefined) checkBacking('Graph.commit: backing', backing);
  for (const [key, policy] of Object.entries({ onSourceError, onTargetError })) {
    if (POLICIES.includes(policy)) continue;
    throw new TypeError(`${key} must be report or stop, not ${JSON.stringify(policy)}`);
  }
  const { targetIsZero = false, detectZeroes = 'off' } = options;
  if (!DETECT.includes(detectZeroes)) {
    throw new TypeError(`detectZeroes must be off, on or unmap, not ${detectZeroes}`);
  }
  const zeroes = { targetIsZero, detectZeroes };
  return { node, base, ...(backing && { backing }), ...zeroes, onSourceError, onTargetError };
}
