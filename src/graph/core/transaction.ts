import type { BitmapAction } from '../../bitmap/index.js';
import type { Driver } from '../../block/index.js';
import { drained } from './drain.js';
import type { Edge } from './edge.js';
import type { Node } from './node.js';
import { changesContent, checkChanges, checkExpected, type EdgeChange } from './replacement.js';
import type { GraphState } from './state.js';
import { View } from './view.js';

/** Changes of the bitmaps of one node, in order. */
export interface BitmapChange {
  readonly node: Node;
  readonly actions: readonly BitmapAction[];
}

/** All that happens at one moment. */
export interface Changes {
  readonly edges: readonly EdgeChange[];
  readonly bitmaps: readonly BitmapChange[];
}

/**
 * Changes a graph at one moment, between two requests of everybody who is concerned: checks, waits until nothing is in flight,
 * checks again, and then assigns without waiting. Where one part fails, all of it is undone.
 *
 * @throws LacunaError ERR_GRAPH_EDGE_CHANGED, ERR_GRAPH_CONFLICT, ERR_GRAPH_BUSY; what a change of a bitmap throws.
 */
export async function change(state: GraphState, changes: Changes, limitMs: number): Promise<void> {
  checkChanges(state.edges, changes.edges);
  const dirtied = dirtiedBy(state, changes.edges);
  for (const { log } of dirtied) await log.prepareDirtyAll();
  for (const { node, actions } of changes.bitmaps) await node.log.prepare(actions);
  await drained(state.stillness(nodesOf(changes)), limitMs, async () => {
    // What an old node was told leaves the way of flushes with it.
    for (const { expected } of changes.edges) if (expected.writable) await expected.device.flush();
    for (const { node } of changes.bitmaps) await node.log.markAll();
    apply(changes, dirtied, firstUsedBy(state, changes.edges));
  });
}

/** Nothing here waits, so nobody sees a part of it. */
function apply(
  { edges, bitmaps }: Changes,
  dirtied: readonly Node[],
  firstUsed: readonly Driver[],
): void {
  for (const each of edges) checkExpected(each);
  // First, as it may find no memory: more dirt than there must be does no harm.
  for (const { log } of dirtied) log.dirtyAll();
  const begun: { commit(): void; undo(): void }[] = [];
  try {
    for (const { node, actions } of bitmaps) begun.push(node.log.bitmaps.begin(actions));
    for (const driver of firstUsed) driver.firstUsed?.();
  } catch (error) {
    for (const each of begun.reverse()) each.undo();
    throw error;
  }
  for (const each of begun) each.commit();
  for (const { edge, replacement } of edges) edge.to = replacement;
  for (const { edge } of edges) tellParent(edge);
}

function* nodesOf({ edges, bitmaps }: Changes): Generator<Node> {
  for (const { edge, expected, replacement } of edges) {
    if (edge.role !== 'root') yield edge.parent as Node;
    yield expected;
    yield replacement;
  }
  for (const { node } of bitmaps) yield node;
}

/** The nodes that show another disk afterwards. */
function dirtiedBy({ edges, view }: GraphState, changes: readonly EdgeChange[]): Node[] {
  const replaced = new Map(changes.map(({ edge, replacement }) => [edge, replacement]));
  const after = new View(edges, replaced);
  const dirtied = new Set<Node>();
  for (const each of changes) {
    const { edge } = each;
    if (edge.role === 'root' || !changesContent(each, view, after)) continue;
    for (const above of after.above(edge.parent as Node)) {
      if ((above as Node).what === 'node') dirtied.add(above as Node);
    }
  }
  return [...dirtied].filter((node) => !node.grows);
}

/** The drivers of nodes that nobody has used yet. */
function firstUsedBy({ view }: GraphState, changes: readonly EdgeChange[]): Driver[] {
  const nodes = new Set(changes.map(({ replacement }) => replacement));
  const isUsed = (node: Node) => view.to(node).some(({ role }) => role !== 'snapshot');
  return [...nodes].filter((node) => !isUsed(node)).map(({ driver }) => driver);
}

function tellParent({ role, parent, key }: Edge): void {
  if (role !== 'root') (parent as Node).driver.childReplaced?.(key);
}
