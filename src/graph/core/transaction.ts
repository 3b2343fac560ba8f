import type { BitmapAction } from '../../bitmap/index.js';
import type { Driver } from '../../block/index.js';
import { drained } from './drain.js';
import type { Edge } from './edge.js';
import { raiseLocks } from './locks.js';
import type { Node } from './node.js';
import { changesContent, checkChanges, checkExpected, type EdgeChange } from './replacement.js';
import type { GraphState } from './state.js';
import { View } from './view.js';

/** Changes of the bitmaps of one node, in order. */
export interface BitmapChange {
  readonly node: Node;
  readonly actions: readonly BitmapAction[];
  /**
   * Called while nothing is in flight, for what is only known then: what it returns is done in the place of `actions`, which say to
   * which bitmaps it adds.
   */
  readonly now?: () => readonly BitmapAction[];
}

/** All that happens at one moment. */
export interface Changes {
  readonly edges: readonly EdgeChange[];
  readonly bitmaps: readonly BitmapChange[];
  /** Filters that come into use, even where nobody uses what is below them. */
  readonly begins?: readonly Node[];
  /** Filters that go behind the change: what they need does not count any more. */
  readonly removed?: readonly Node[];
  /** Uses of a node that end: their parents show nothing in its place any more, which looks the same to who is above. */
  readonly ended?: readonly Edge[];
  /** Uses by nodes that nobody has used, which count from then on. */
  readonly joined?: readonly Edge[];
  /** What must be durable before anything is assigned, while nothing is in flight. When the limit is over, it begins nothing new. */
  readonly prepare?: (isOver: () => boolean) => Promise<void>;
  /** The same, behind all of that: what headers of images say, which is true before and after the change. */
  readonly name?: (isOver: () => boolean) => Promise<void>;
}

/**
 * Changes a graph at one moment, between two requests of everybody who is concerned: checks, waits until nothing is in flight,
 * checks again, and then assigns without waiting. Where one part fails, all of it is undone.
 *
 * @throws LacunaError ERR_GRAPH_EDGE_CHANGED, ERR_GRAPH_CONFLICT, ERR_GRAPH_BUSY; what a change of a bitmap throws.
 */
export async function change(state: GraphState, changes: Changes, limitMs: number): Promise<void> {
  const { removed, ended = [], joined = [] } = changes;
  const remaining = [...state.edges].filter((edge) => !ended.includes(edge));
  const after = checkChanges(remaining, changes.edges, removed, joined);
  const dirtied = dirtiedBy(state, changes.edges);
  for (const { log } of dirtied) await log.prepareDirtyAll();
  for (const { node, actions } of changes.bitmaps) await node.log.prepare(actions);
  await raiseLocks(state.nodes.values(), after);
  await raiseLocks(
    changes.bitmaps.map(({ node }) => node),
    after,
    'read',
  );
  await drained(state.stillness(nodesOf(changes)), limitMs, {
    prepare: async (isOver) => {
      // What an old node was told leaves the way of flushes with it.
      for (const { expected } of changes.edges) {
        if (expected.writable && !removed?.includes(expected)) await expected.device.flush();
      }
      for (const { node } of changes.bitmaps) await node.log.markAll();
      if (!isOver()) await changes.prepare?.(isOver);
      if (!isOver()) await changes.name?.(isOver);
    },
    assign: () => {
      apply(changes, dirtied, usedAfter(state, changes));
      end(state, ended);
      for (const edge of joined) edge.isPending = false;
      tellAbove(state, [...changes.edges.map(({ edge }) => edge), ...ended, ...joined]);
    },
  });
}

/** Nothing here waits, so nobody sees a part of it. */
function apply(
  { edges, bitmaps }: Changes,
  dirtied: readonly Node[],
  used: readonly Driver[],
): void {
  for (const each of edges) checkExpected(each);
  // First, as it may find no memory: more dirt than there must be does no harm.
  for (const { log, driver } of dirtied) {
    log.dirtyAll();
    driver.contentChanged?.();
  }
  const begun: { commit(): void; undo(): void }[] = [];
  try {
    for (const { node, actions, now } of bitmaps) {
      begun.push(node.log.bitmaps.begin(now?.() ?? actions));
    }
    for (const driver of used) {
      const undo = driver.firstUsed?.();
      if (undo !== undefined) begun.push({ commit: () => {}, undo });
    }
  } catch (error) {
    for (const each of begun.reverse()) each.undo();
    throw error;
  }
  for (const each of begun) each.commit();
  for (const { edge, replacement } of edges) edge.to = replacement;
}

function end(state: GraphState, ended: readonly Edge[]): void {
  for (const edge of ended) {
    state.edges.delete(edge);
    (edge.parent as Node).driver.endBacking?.();
  }
}

function* nodesOf({
  edges,
  bitmaps,
  begins = [],
  ended = [],
  joined = [],
}: Changes): Generator<Node> {
  for (const { parent } of ended) yield parent as Node;
  for (const { to } of joined) yield to;
  yield* begins;
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
    if (edge.role === 'root' || each.isSame || !changesContent(each, view, after)) continue;
    for (const above of after.above(edge.parent as Node)) {
      if ((above as Node).what === 'node') dirtied.add(above as Node);
    }
  }
  return [...dirtied].filter((node) => !node.grows);
}

/** The drivers of nodes that somebody uses afterwards. */
function usedAfter({ edges: all }: GraphState, { edges, begins = [] }: Changes): Driver[] {
  const replaced = new Map(edges.map(({ edge, replacement }) => [edge, replacement]));
  return [...new View(all, replaced).used(), ...begins].map(({ driver }) => driver);
}

/** What those above remember of it may be of the node that was there before. */
function tellAbove({ view }: GraphState, edges: readonly Edge[]): void {
  for (const edge of edges) {
    if (edge.role === 'root') continue;
    for (const above of view.above(edge.parent as Node)) {
      if ((above as Node).what === 'node') (above as Node).driver.changedBelow?.();
    }
  }
}
