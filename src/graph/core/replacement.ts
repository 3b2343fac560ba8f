import type { Edge } from './edge.js';
import { called, conflict, edgeChanged } from './failures.js';
import type { Node } from './node.js';
import { checkUsers } from './permissions.js';
import { View } from './view.js';

/** One edge that is going to lead to another node. */
export interface EdgeChange {
  readonly edge: Edge;
  readonly expected: Node;
  readonly replacement: Node;
  /** What is seen through the edge may be another disk then. */
  readonly unsafe: boolean;
  /** Its parent sees the same disk as before, although it is another node that holds that: who changes it has seen to that. */
  readonly isSame?: boolean;
}

/**
 * Throws unless the edges lead where they are expected to, and may lead to their replacements, all at once.
 *
 * @returns the graph as it is then.
 * @throws LacunaError ERR_GRAPH_EDGE_CHANGED, ERR_GRAPH_CONFLICT
 */
export function checkChanges(
  edges: Iterable<Edge>,
  changes: readonly EdgeChange[],
  removed: readonly Node[] = [],
  joined: readonly Edge[] = [],
): View {
  for (const change of changes) {
    checkExpected(change);
    checkSize(change);
  }
  const replaced = new Map(changes.map(({ edge, replacement }) => [edge, replacement]));
  if (replaced.size < changes.length) throw new TypeError(`${twice(changes)} is replaced twice`);
  const remaining = [...edges].filter(({ parent }) => !removed.includes(parent as Node));
  const after = new View(remaining, replaced, joined);
  const circle = after.circle();
  if (circle !== undefined) {
    const names = [...circle, circle[0]].map(({ name }) => `'${name}'`).join(' > ');
    throw conflict(`the change would make a circle of nodes: ${names}; nothing was changed`);
  }
  const before = new View(edges);
  for (const change of changes) checkContent(change, before, after);
  for (const edge of remaining) checkUsers(after.childOf(edge), after);
  return after;
}

function twice(changes: readonly EdgeChange[]): string {
  const edges = changes.map(({ edge }) => edge);
  return edges.find((edge, i) => edges.indexOf(edge) < i)!.label;
}

/** @throws LacunaError ERR_GRAPH_EDGE_CHANGED */
export function checkExpected({ edge, expected }: EdgeChange): void {
  if (edge.to !== expected) throw edgeChanged(edge.label, expected, edge.to);
}

/** What lies below an overlay may have any size; everybody else keeps the size that the disk had. */
function checkSize({ edge, expected, replacement }: EdgeChange): void {
  if (edge.role === 'below' || expected.size === replacement.size) return;
  const message = `${edge.label} needs ${expected.size} bytes, and ${called(replacement)} has ${replacement.size}: take one of the same size`;
  throw conflict(message);
}

/** Filters show what is below them: where it is the same node, nobody sees a change. */
function checkContent(change: EdgeChange, before: View, after: View): void {
  const { edge, expected, replacement } = change;
  if (edge.role === 'snapshot') {
    const message = `${edge.label} shows what ${called(expected)} keeps, which nothing else has: remove ${called(edge.parent)}, and add it again`;
    throw conflict(message);
  }
  if (change.isSame || !changesContent(change, before, after)) return;
  checkReplaceable(change);
  if (edge.role !== 'root') checkNotKept(edge.parent as Node, before);
  if (change.unsafe) return;
  const message = `${called(replacement)} is not ${called(expected)} with other filters, so ${edge.label} would show another disk from one moment to the next: say unsafe where that is meant`;
  throw conflict(message);
}

/** Roles of nodes in which those above know where they keep what. */
const STORES: readonly string[] = ['image', 'data file', 'part', 'target'];

/** An image, or a filter that keeps old content, finds what it has stored in its own node only. */
function checkReplaceable({ edge, expected }: EdgeChange): void {
  if (!STORES.includes(edge.role)) return;
  const message = `${called(edge.parent)} knows where it keeps what in ${called(expected)}: only filters may come in between`;
  throw conflict(message);
}

/** What a filter has not copied yet must stay on the disk. */
function checkNotKept(parent: Node, view: View): void {
  checkNotHeld(parent, view);
  for (const above of view.above(parent)) {
    if (!(above as Node).keepsOld) continue;
    const message = `${called(above as Node)} keeps what the disk below it was, which cannot become another one: remove the filter first`;
    throw conflict(message);
  }
}

/**
 * What a job moves between layers must stay what it is.
 *
 * @throws LacunaError ERR_GRAPH_CONFLICT
 */
export function checkNotHeld(node: Node, view: View): void {
  for (const above of view.above(node)) {
    const { heldBy } = above as Node;
    if (heldBy === undefined) continue;
    const message = `${heldBy} works on the layers below ${called(above as Node)}, none of which can become another one: wait for its end, or stop it`;
    throw conflict(message);
  }
}

/** Whether another disk is seen through the edge afterwards. */
export function changesContent(
  { expected, replacement }: EdgeChange,
  before: View,
  after: View,
): boolean {
  return before.unfiltered(expected) !== after.unfiltered(replacement);
}
