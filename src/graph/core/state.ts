import { closeAfter } from '../../util/index.js';
import type { Drained } from './drain.js';
import type { Edge } from './edge.js';
import { busy, called, type Named, nameTaken, unknownName } from './failures.js';
import type { Node } from './node.js';
import type { Root } from './root.js';
import { View } from './view.js';

/** What a graph consists of. It is changed by one task at a time, which has its turn; see Changer. */
export class GraphState {
  readonly nodes = new Map<string, Node>();
  readonly roots = new Map<string, Root>();
  readonly edges = new Set<Edge>();
  readonly #groups = new Map<string, SharedArrayBuffer>();
  #counted = 0;

  /** The graph as it is now. */
  get view(): View {
    return new View(this.edges);
  }

  /** What filters of a group share; see Opening. */
  readonly memoryOf = (group: string, make: () => SharedArrayBuffer): SharedArrayBuffer => {
    const memory = this.#groups.get(group) ?? make();
    this.#groups.set(group, memory);
    return memory;
  };

  node(name: string | Node): Node {
    const found = typeof name === 'string' ? this.nodes.get(name) : name;
    if (found !== undefined && this.nodes.get(found.name) === found) return found;
    throw unknownName('node', typeof name === 'string' ? name : name.name, this.nodes.keys());
  }

  /** A node, an export or a job. */
  user(name: string | Named): Named {
    if (typeof name !== 'string') return name;
    const found = this.roots.get(name) ?? this.nodes.get(name);
    if (found !== undefined) return found;
    const names = [...this.roots.keys(), ...this.nodes.keys()];
    throw unknownName('node, export or job', name, names);
  }

  edge(parent: string | Named, key: string): Edge {
    const user = this.user(parent);
    const edges = this.view.from(user);
    const found = edges.find((edge) => edge.key === key);
    if (found !== undefined) return found;
    throw unknownName(
      `child of ${called(user)} called`,
      key,
      edges.map((edge) => edge.key),
    );
  }

  /** @throws LacunaError ERR_GRAPH_EXISTS */
  checkFree(name: string): void {
    const taken = this.nodes.get(name) ?? this.roots.get(name);
    if (taken !== undefined) throw nameTaken(name, taken);
  }

  /** A name that nobody has: what was asked for, or that with a number. */
  freeName(wanted: string): string {
    const isFree = (name: string) => !this.nodes.has(name) && !this.roots.has(name);
    if (isFree(wanted)) return wanted;
    for (;;) {
      const name = `${wanted}-${++this.#counted}`;
      if (isFree(name)) return name;
    }
  }

  /** The exports and jobs whose requests may come to one of these nodes, and what lies below them. */
  stillness(nodes: Iterable<Node>): Drained {
    const { view } = this;
    const above = new Set([...nodes].flatMap((node) => [...view.above(node)]));
    const entrances = [...this.roots.values()].filter((root) => above.has(root));
    const below = new Set(entrances.flatMap((root) => [...view.reach(root.node)]));
    return { entrances, lasting: [...below].map(({ driver }) => driver) };
  }

  /** Closes a node that nobody uses, and what belongs to it and is not used by others. */
  async remove(node: Node): Promise<void> {
    const users = this.view.to(node).map((edge) => edge.label);
    if (users.length > 0) {
      throw busy(`${called(node)} is used as ${users.join(', and ')}: end that first`);
    }
    this.nodes.delete(node.name);
    const edges = this.view.from(node);
    await closeAfter(
      () => node.close(),
      () => this.letGo(edges),
    );
  }

  /** Ends the uses that a node which is closed has made of others. */
  async letGo(edges: readonly Edge[]): Promise<void> {
    for (const edge of edges) this.edges.delete(edge);
    const below = edges.map(({ to }) => to);
    for (const node of below) {
      if (!node.isOwned && this.view.to(node).length === 0) node.endGrowth();
    }
    await this.removeOwned(below);
  }

  /** Removes nodes, those that are still there, in order. One that fails holds up no other: its error is thrown at the end. */
  async removeAll(nodes: Iterable<Node>): Promise<void> {
    const failures: unknown[] = [];
    for (const node of nodes) {
      if (this.nodes.get(node.name) !== node) continue;
      await this.remove(node).catch((error) => void failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
  }

  /** Closes what was made with nodes that are gone, where nobody else uses it. */
  async removeOwned(nodes: readonly Node[]): Promise<void> {
    await this.removeAll(this.#unused(nodes));
  }

  *#unused(nodes: readonly Node[]): Generator<Node> {
    for (const node of nodes) if (node.isOwned && this.view.to(node).length === 0) yield node;
  }
}
