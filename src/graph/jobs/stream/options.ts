import type { BackingName } from '../../../block/index.js';
import { checkBacking } from '../../../block/index.js';
import type { DetectZeroes } from '../../../copy/index.js';
import { optionCheck } from '../../../util/index.js';
import { GRAPH_JOB_OPTIONS, type GraphJobOptions } from '../group/index.js';

/** A stream job. */
export interface StreamJobOptions extends GraphJobOptions {
  /** The image that gets what lies below it, by the name of its node. Filters may lie above it. */
  readonly node: string;
  /** The image that stays below it. Default: none, so that the node holds all of its disk. */
  readonly base?: string;
  /** The lowest image that goes, in place of `base`. */
  readonly bottom?: string;
  /** The name of the base as it shall stand in the image. Default: as the image above the base names it. */
  readonly backing?: BackingName;
  /** What stays below the image, if anything, is known to read as zero: what is zero in the layers that go is left out. Default false. */
  readonly targetIsZero?: boolean;
  /** Data that is nothing but zeroes is zeroed in the image, with `unmap` as a hole. Default `off`. */
  readonly detectZeroes?: DetectZeroes;
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
  ...GRAPH_JOB_OPTIONS,
  node: { needed: 'the name of the image that gets what lies below it' },
  base: 'any',
  bottom: 'any',
  backing: 'any',
  targetIsZero: 'flag',
  detectZeroes: 'any',
  onSourceError: 'any',
  onTargetError: 'any',
});

const POLICIES: readonly unknown[] = ['report', 'stop'];
const DETECT: readonly unknown[] = ['off', 'on', 'unmap'];

/** Options with everything said. */
export type CheckedStream = Omit<StreamJobOptions, keyof GraphJobOptions> &
  Required<
    Pick<StreamJobOptions, 'targetIsZero' | 'detectZeroes' | 'onSourceError' | 'onTargetError'>
  >;

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
  const { targetIsZero = false, detectZeroes = 'off' } = options;
  if (!DETECT.includes(detectZeroes)) {
    throw new TypeError(`detectZeroes must be off, on or unmap, not ${detectZeroes}`);
  }
  return { ...options, targetIsZero, detectZeroes, onSourceError, onTargetError };
}
