import { optionCheck } from '../../util/index.js';
import {
  type AddNodeOptions,
  busy,
  called,
  EVERYTHING,
  type FilterNodeDescription,
  type Node,
  type Permission,
  type Root,
} from '../core/index.js';

/** How patient a graph is. */
export interface GraphOptions {
  /** For so long a change waits for requests in flight. Default 10 s. */
  readonly drainLimitMs?: number;
}

/** An export to be added. */
export interface AddExportOptions {
  /** What it is called; no node, export or job of the graph may have the name. */
  readonly name: string;
  /** The node that it leads to. */
  readonly node: string | Node;
  /** Whether it may be written. Default false. */
  readonly writable?: boolean;
  /** What others may do with the node meanwhile. Default: everything. */
  readonly shares?: readonly Permission[];
}

/** A filter and the place where it comes in. */
export interface FilterInsertion {
  /** The filter; what it lies above is said by `above`. */
  readonly filter: FilterNodeDescription;
  /** The node that it comes to lie above. */
  readonly above: string | Node;
  /** The users of that node that go through the filter. Default: all of them. */
  readonly parents?: readonly (string | Node | Root)[];
}

export const checkGraphOptions = optionCheck<GraphOptions>({ drainLimitMs: 'any' });
export const checkAdd = optionCheck<AddNodeOptions>({
  writable: 'flag',
  bitmapFile: 'any',
  trustBitmaps: 'flag',
  signal: 'signal',
});
export const checkExport = optionCheck<AddExportOptions>({
  name: { needed: 'what the export is called' },
  node: { needed: 'the node that it leads to' },
  writable: 'flag',
  shares: 'any',
});
export const checkInsertion = optionCheck<FilterInsertion>({
  filter: { needed: 'the description of the filter' },
  above: { needed: 'the node that it comes to lie above' },
  parents: 'any',
});

export function checkName(name: unknown): void {
  if (typeof name === 'string' && name !== '') return;
  throw new TypeError(`name must be a text that is not empty, not ${JSON.stringify(name)}`);
}

/** @throws LacunaError ERR_GRAPH_BUSY */
export function checkNotOfJob(node: Node): void {
  if (!node.isOfJob) return;
  throw busy(`${called(node)} is a part of a job, and goes with it: end the job`);
}

export function checkPermissions(shares: readonly unknown[]): void {
  if (!Array.isArray(shares))
    throw new TypeError('shares must be a list of read, write and resize');
  for (const each of shares) {
    if (EVERYTHING.includes(each as Permission)) continue;
    throw new TypeError(`shares has read, write and resize, not ${JSON.stringify(each)}`);
  }
}
