import type { Edge, GraphState, Node } from '../../core/index.js';

/**
 * Closes images and filters that a chain had, from one down to another, where nobody else uses them.
 *
 * @returns their names.
 */
export async function drop(state: GraphState, from: Node, bottom: Node): Promise<string[]> {
  const chain: Node[] = [];
  for (let node: Node | undefined = from; node !== undefined; ) {
    chain.push(node);
    if (node === bottom) break;
    const below: Edge | undefined = state.view
      .from(node)
      .find(({ role }) => role !== 'image' && role !== 'data file');
    node = below?.to;
  }
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
