import { optionCheck } from '../../../util/index.js';
import { GRAPH_JOB_OPTIONS, type GraphJobOptions } from '../group/index.js';

/** What makes bitmaps dirty: a node, and for `from: 'bitmap'` one of its bitmaps. */
export interface PopulateSource {
  /** The name of the node. */
  readonly node: string;
  /** The name of its bitmap. */
  readonly bitmap?: string;
}

/** A bitmap that is populated. */
export interface PopulateTarget {
  /** The name of the node. */
  readonly node: string;
  /** The name of its bitmap. */
  readonly bitmap: string;
}

/**
 * What counts: `allocation`, what the source itself holds, zeroes included, and not what shows through from below it; `data`, what does
 * not read as zero; `bitmap`, what is dirty in a bitmap; `everything`.
 */
export type PopulateFrom = 'allocation' | 'data' | 'bitmap' | 'everything';

/**
 * What is done to the targets: `union`, what counts becomes dirty too; `overwrite`, only what counts is dirty; `difference`, what counts
 * becomes clean, where a granule holds nothing else.
 */
export type PopulateOperation = 'union' | 'overwrite' | 'difference';

/** A populate job. */
export interface PopulateJobOptions extends Omit<GraphJobOptions, 'rate'> {
  /** What counts. */
  readonly from: PopulateFrom;
  /** Nodes of one size: what counts in any of them does. None for `everything`. */
  readonly sources?: readonly PopulateSource[];
  /** Bitmaps of nodes of that size, of any granularity. Nobody else uses them meanwhile. */
  readonly targets: readonly PopulateTarget[];
  /** Default `union`. */
  readonly operation?: PopulateOperation;
}

/** Result of a populate job. */
export interface PopulateJobReport {
  /** What a person should know although it succeeded: status that was refused, and so taken for data. */
  readonly warnings: readonly string[];
}

/** Options with everything said. */
export type CheckedPopulate = Required<Omit<PopulateJobOptions, keyof GraphJobOptions>>;

const FROM: readonly string[] = ['allocation', 'data', 'bitmap', 'everything'];
const OPERATIONS: readonly string[] = ['union', 'overwrite', 'difference'];

const { rate: _, ...OWN_OPTIONS } = GRAPH_JOB_OPTIONS;

const check = optionCheck<PopulateJobOptions>({
  ...OWN_OPTIONS,
  from: { needed: `what counts: ${FROM.join(', ')}` },
  sources: 'any',
  targets: { needed: 'a list; each is { node, bitmap }' },
  operation: 'any',
});
const checkSource = optionCheck<PopulateSource>({
  node: { needed: 'the name of the node' },
  bitmap: 'any',
});
const checkTarget = optionCheck<PopulateTarget>({
  node: { needed: 'the name of the node' },
  bitmap: { needed: 'the name of its bitmap' },
});

/** @throws TypeError for options that make no sense. */
export function checkPopulateJob(options: PopulateJobOptions): CheckedPopulate {
  check('Graph.populate', options);
  const { from, sources = [], targets, operation = 'union' } = options;
  checkOneOf('from', from, FROM);
  checkOneOf('operation', operation, OPERATIONS);
  if (!Array.isArray(targets) || targets.length === 0) {
    throw new TypeError('targets must be a list of { node, bitmap }, one or more');
  }
  for (const [i, target] of targets.entries()) checkTarget(`Graph.populate: targets[${i}]`, target);
  const keys = targets.map(({ node, bitmap }) => JSON.stringify([node, bitmap]));
  if (new Set(keys).size < keys.length) throw new TypeError('targets must name each bitmap once');
  checkSources(from, sources);
  return { from, sources, targets, operation };
}

function checkSources(from: PopulateFrom, sources: readonly PopulateSource[]): void {
  if (from === 'everything') {
    if (Array.isArray(sources) && sources.length === 0) return;
    throw new TypeError('leave out sources: everything counts');
  }
  if (!Array.isArray(sources) || sources.length === 0) {
    throw new TypeError('sources must be a list of { node }, one or more');
  }
  for (const [i, source] of sources.entries()) {
    checkSource(`Graph.populate: sources[${i}]`, source);
    if ((source.bitmap !== undefined) === (from === 'bitmap')) continue;
    throw new TypeError(
      from === 'bitmap'
        ? `sources[${i}] must say which bitmap of the node`
        : `sources[${i}] has a bitmap: say from: 'bitmap', or leave it out`,
    );
  }
}

function checkOneOf(key: string, value: string, choices: readonly string[]): void {
  if (choices.includes(value)) return;
  throw new TypeError(`${key} must be one of ${choices.join(', ')}, not ${value}`);
}
