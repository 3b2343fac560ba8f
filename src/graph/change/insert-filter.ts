import { type Changer, type Node, type NodeDescription, unknownName } from '../core/index.js';
import type { FilterInsertion } from '../options/index.js';

/** Adds a filter between a node and those who use it; see `Graph.insertFilter`. */
export async function insertFilter(changer: Changer, insertion: FilterInsertion): Promise<Node> {
  const { state } = changer;
  const below = state.node(insertion.above);
  // Who reads what the node keeps does not come to it: a filter in between would keep nothing.
  const edges = state.view.to(below).filter(({ role }) => role !== 'snapshot');
  const meant = insertion.parents?.map((parent) => state.user(parent));
  const missing = meant?.find((user) => !edges.some(({ parent }) => parent === user));
  if (missing !== undefined) {
    throw unknownName(
      'user called',
      missing.name,
      edges.map(({ parent }) => parent.name),
    );
  }
  const { writable } = below;
  const description = { ...insertion.filter, file: below.name } as NodeDescription;
  const filter = await changer.add(description, { writable, mustFilter: true });
  const moved = edges.filter(({ parent }) => meant?.includes(parent) ?? true);
  try {
    const edgeChange = { expected: below, replacement: filter, unsafe: false };
    await changer.change({ edges: moved.map((edge) => ({ edge, ...edgeChange })) });
  } catch (error) {
    await changer.takeBack([], [filter]);
    throw error;
  }
  return filter;
}
