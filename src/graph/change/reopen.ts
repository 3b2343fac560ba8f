import { optionCheck } from '../../util/index.js';
import { busy, type Changer, called, conflict, type Node, usersNeed } from '../core/index.js';

/** How a node is from then on. */
export interface Reopening {
  /** Its name. */
  readonly node: string;
  /** Default: as it is. */
  readonly writable?: boolean;
  /**
   * Nodes by the keys of the children that they become, such as `backing`. What is shown may be another disk from then on: the bitmaps
   * of all nodes above are all dirty.
   */
  readonly children?: Readonly<Record<string, string>>;
}

const checkOne = optionCheck<Reopening>({
  node: { needed: 'the name of the node' },
  writable: 'flag',
  children: 'any',
});

function checkAll(wanted: readonly Reopening[]): void {
  if (!Array.isArray(wanted)) throw new TypeError('Graph.reopen: say a list of nodes');
  for (const one of wanted) checkOne('Graph.reopen', one);
}

/** Opens nodes otherwise; see `Graph.reopen`. */
export async function reopen(changer: Changer, wanted: readonly Reopening[]): Promise<void> {
  checkAll(wanted);
  const undo: (() => Promise<unknown>)[] = [];
  const left: Node[] = [];
  for (const { node } of wanted) changer.state.node(node);
  try {
    for (const one of wanted) {
      left.push(...(await setChildren(changer, one, undo)));
      await setWritable(changer, one, undo);
    }
  } catch (error) {
    // What went wrong first says more.
    for (const back of undo.reverse()) await back().catch(() => {});
    throw error;
  }
  // Not before all is done: what is taken back needs them.
  await changer.state.removeOwned(left);
}

async function setWritable(
  changer: Changer,
  { node: name, writable }: Reopening,
  undo: (() => Promise<unknown>)[],
): Promise<void> {
  const node = changer.state.node(name);
  const before = node.writable;
  if (writable === undefined || writable === before) return;
  if (!writable && usersNeed(node, changer.state.view).includes('write')) {
    throw conflict(
      `${called(node)} is written by others, so it cannot be read-only: end that first`,
    );
  }
  if (!writable) await node.device.flush();
  await changer.setWritable(node, writable);
  undo.push(() => changer.setWritable(node, before));
}

/** @returns the children that were there before. */
async function setChildren(
  changer: Changer,
  { node: name, children = {} }: Reopening,
  undo: (() => Promise<unknown>)[],
): Promise<Node[]> {
  const { state } = changer;
  const edges = Object.entries(children).flatMap(([key, child]) => {
    const edge = state.edge(name, key);
    const replacement = state.node(child);
    if (edge.to === replacement) return [];
    if (edge.to.isOfJob)
      throw busy(`${called(edge.to)} is a part of a job: wait for its end, or stop it`);
    return [{ edge, expected: edge.to, replacement, unsafe: true }];
  });
  if (edges.length === 0) return [];
  const left = await changer.changeAndKeep({ edges });
  const back = edges.map(({ edge, expected, replacement }) => {
    return { edge, expected: replacement, replacement: expected, unsafe: true };
  });
  undo.push(() => changer.changeAndKeep({ edges: back }));
  return left;
}
