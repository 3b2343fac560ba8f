import type { BackingName } from '../../../block/index.js';
import { checkBacking } from '../../../block/index.js';
import { JOB_OPTIONS, type JobOptions } from '../../../job/index.js';
import { optionCheck } from '../../../util/index.js';

/** A stream job. */
export interface StreamJobOptions extends JobOptions {
  /** The image that gets what lies below it, by the name of its node. Filters may lie above it. */
  readonly node: string;
  /** The image that stays below it. Default: none, so that the node holds all of its disk. */
  readonly base?: string;
  /** The lowest image that goes, in place of `base`. */
  readonly bottom?: string;
  /** The name of the base as it shall stand in the image. Default: as the image above the base names it. */
  readonly backing?: BackingName;
  /** What happens when the layers below cannot be read: `report` (default), the job fails; `stop`, it waits for a human. */
  readonly onSourceError?: 'report' | 'stop';
  /** What happens when the image cannot be written. Default `report`. */
  readonly onTargetError?: 'report' | 'stop';
}

/** Result of a stream job. */
export interface StreamJobReport {
  /** Bytes that were copied into the image. */
  readonly movedBytes: number;
  /** Bytes of the image that were zeroed, to hide what lies below. */
  readonly zeroedBytes: number;
  /** Images and filters that the chain does not have any more, and that were closed. */
  readonly dropped: readonly string[];
}

const check = optionCheck<StreamJobOptions>({
  ...JOB_OPTIONS,
  node: { needed: 'the name of the image that gets what lies below it' },
  base: 'any',
  bottom: 'any',
  backing: 'any',
  onSourceError: 'any',
  onTargetError: 'any',
});

const POLICIES: readonly unknown[] = ['report', 'stop'];

/** Options with everything said. */
export type CheckedStream = Omit<StreamJobOptions, 'rate' | 'signal'> &
  Required<Pick<StreamJobOptions, 'onSourceError' | 'onTargetError'>>;

/** @throws TypeError for options that make no sense. */
export function checkStreamJob(options: StreamJobOptions): CheckedStream {
  check('Graph.stream', options);
  const { base, bottom, backing } = options;
  for (const key of ['node', 'base', 'bottom'] as const) {
    const name = options[key];
    if (name === undefined || typeof name === 'string') continue;
    throw new TypeError(`${key} must be the name of a node, not ${JSON.stringify(name)}`);
  }
  if (base !== undefined && bottom !== undefined) {
    throw new TypeError('base and bottom both say where the layers end: leave one of them out');
  }
  if (backing !== undefined) checkBacking('Graph.stream: backing', backing);
  for (const key of ['onSourceError', 'onTargetError'] as const) {
    const policy = options[key] ?? 'report';
    if (POLICIES.includes(policy)) continue;
    throw new TypeError(`${key} must be report or stop, not ${JSON.stringify(policy)}`);
  }
  const { onSourceError = 'report', onTargetError = 'report' } = options;
  return { ...options, onSourceError, onTargetError };
}
