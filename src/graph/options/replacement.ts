import { optionCheck } from '../../util/index.js';
import type { Changer, EdgeChange, Node, Root } from '../core/index.js';

/** Which child of which node, export or job becomes another one. */
export interface ChildReplacement {
  /** The node, export or job that uses the child. */
  readonly parent: string | Node | Root;
  /** As what: `file`, `backing` and so on; `root` for an export or a job. */
  readonly child: string;
  /** The node that is used until now. A name means the node that has it when this is called. */
  readonly expected: string | Node;
  /** The node that is used from then on. */
  readonly replacement: string | Node;
  /**
   * The parent may show another disk from one moment to the next. The bitmaps of all nodes above are all dirty then. Default
   * false: only filters come and go.
   */
  readonly unsafe?: boolean;
}

/** @throws TypeError for a replacement that makes no sense. */
export const checkReplacement = optionCheck<ChildReplacement>({
  parent: { needed: 'the node, export or job that uses the child' },
  child: { needed: 'the key of the child, such as file or backing; root for an export' },
  expected: { needed: 'the node that is there until now' },
  replacement: { needed: 'the node that comes in its place' },
  unsafe: 'flag',
});
/** The node that is meant: by the time that the change has its turn, its name may be another one's. */
export function expectedNow({ state }: Changer, { expected }: ChildReplacement): Node {
  return typeof expected === 'string' ? state.node(expected) : expected;
}

/** What a replacement means in the graph as it is. */
export function resolveReplacement(
  { state }: Changer,
  { parent, child, replacement, unsafe = false }: ChildReplacement,
  expected: Node,
): EdgeChange {
  const edge = state.edge(parent, child);
  return { edge, expected, replacement: state.node(replacement), unsafe };
}
