import type { Edge, EdgeRole } from './edge.js';
import type { Node } from './node.js';

/** The edges of a graph, as they are or as a change would leave them. */
export class View {
  readonly #edges: Iterable<Edge>;
  readonly #replaced: ReadonlyMap<Edge, Node>;
  readonly #joined: readonly Edge[];

  /**
   * @param replaced where edges would lead, in place of where they do.
   * @param joined edges that would count, although they do not yet.
   */
  constructor(
    edges: Iterable<Edge>,
    replaced: ReadonlyMap<Edge, Node> = new Map(),
    joined: readonly Edge[] = [],
  ) {
    this.#edges = edges;
    this.#replaced = replaced;
    this.#joined = joined;
  }

  /** Whether a use does not count yet. */
  isPending(edge: Edge): boolean {
    return edge.isPending && !this.#joined.includes(edge);
  }

  childOf(edge: Edge): Node {
    return this.#replaced.get(edge) ?? edge.to;
  }

  /** The edges that lead to a node. */
  to(node: Node): Edge[] {
    return [...this.#edges].filter((edge) => this.childOf(edge) === node);
  }

  /** The edges from a node, an export or a job. */
  from(parent: unknown): Edge[] {
    return [...this.#edges].filter((edge) => edge.parent === parent);
  }

  /** A node and everything below it. */
  reach(node: Node, found = new Set<Node>()): Set<Node> {
    if (found.has(node)) return found;
    found.add(node);
    for (const edge of this.from(node)) this.reach(this.childOf(edge), found);
    return found;
  }

  /** All nodes that exports and jobs come to; who reads what a filter keeps does not come to the filter. */
  used(): Set<Node> {
    const found = new Set<Node>();
    const visit = (node: Node): void => {
      if (found.has(node)) return;
      found.add(node);
      for (const edge of this.from(node)) if (edge.role !== 'snapshot') visit(this.childOf(edge));
    };
    for (const edge of this.#edges) if (edge.role === 'root') visit(this.childOf(edge));
    return found;
  }

  /** The first node from one downwards that is no filter. */
  unfiltered(node: Node): Node {
    if (!node.isFilter) return node;
    return this.unfiltered(this.childOf(this.from(node)[0]));
  }

  /** What lies below an image: the use of the next layer, if there is one. */
  backingOf(image: Node): Edge | undefined {
    return this.from(image).find(({ role }) => role === 'below');
  }

  /** The images of a chain, from the top down; filters are left out. */
  layers(top: Node): Node[] {
    const image = this.unfiltered(top);
    const backing = this.backingOf(image);
    return [image, ...(backing === undefined ? [] : this.layers(this.childOf(backing)))];
  }

  /** How many images there are from one node down to another one, both counted; undefined where it does not lie below. */
  layersTo(top: Node, bottom: Node): number | undefined {
    const at = this.layers(top).indexOf(this.unfiltered(bottom));
    return at < 0 ? undefined : at + 1;
  }

  /**
   * Everything above a node, and itself: nodes, exports and jobs.
   *
   * @param except the role of edges behind which nothing is looked for.
   */
  above(node: Node, except?: EdgeRole, found = new Set<unknown>()): Set<unknown> {
    if (found.has(node)) return found;
    found.add(node);
    for (const { parent, role } of this.to(node)) {
      if (role === except) continue;
      if (parent.what === 'node') this.above(parent as Node, except, found);
      else found.add(parent);
    }
    return found;
  }

  /** A chain of nodes that comes back to its first one, if there is one. */
  circle(): Node[] | undefined {
    const done = new Set<Node>();
    const visit = (node: Node, path: readonly Node[]): Node[] | undefined => {
      const at = path.indexOf(node);
      if (at >= 0) return path.slice(at);
      if (done.has(node)) return undefined;
      done.add(node);
      for (const edge of this.from(node)) {
        const found = visit(this.childOf(edge), [...path, node]);
        if (found !== undefined) return found;
      }
      return undefined;
    };
    for (const edge of this.#edges) {
      done.clear();
      const found = visit(this.childOf(edge), []);
      if (found !== undefined) return found;
    }
    return undefined;
  }
}
