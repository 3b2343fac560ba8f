import type { Edge, GraphState, Node } from '../../core/index.js';

/** Images and filters of a chain, from one down to another. */
export function chainBetween(state: GraphState, from: Node, bottom: Node): Node[] {
  if (from === bottom) return [from];
  const below: Edge | undefined = state.view
    .from(from)
    .find(({ role }) => role !== 'image' && role !== 'data file');
  return [from, ...(below === undefined ? [] : chainBetween(state, below.to, bottom))];
}

/**
 * Closes what a chain had and has not any more, from the top down, where nobody else uses it.
 *
 * @returns the names of what is gone.
 */
export async function drop(state: GraphState, chain: readonly Node[]): Promise<string[]> {
  const gone: string[] = [];
  for (const node of chain) {
    // Those that were made with the one above have gone with it.
    const isThere = state.nodes.get(node.name) === node;
    if (isThere && state.view.to(node).length > 0) break;
    if (isThere) await state.remove(node);
    gone.push(node.name);
  }
  return gone;
}
