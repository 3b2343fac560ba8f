import type { BlockGraph } from '../../qmp/index.js';

const JOB = 'block-job';

/** Who uses whom in the block graph of a machine, by names of nodes and jobs. */
export class Graph {
  readonly #ids = new Map<string, number>();
  readonly #names = new Map<number, string>();
  readonly #children = new Map<number, { readonly id: number; readonly role: string }[]>();
  readonly #jobs: readonly { readonly id: number; readonly name: string }[];

  constructor({ nodes, edges }: BlockGraph) {
    for (const { id, type, name } of nodes) {
      this.#names.set(id, name);
      if (type === 'block-driver') this.#ids.set(name, id);
    }
    for (const { parent, child, name } of edges) {
      const children = this.#children.get(parent) ?? [];
      children.push({ id: child, role: name });
      this.#children.set(parent, children);
    }
    this.#jobs = nodes.filter(({ type }) => type === JOB);
  }

  /** The node that another one uses in this role. */
  childOf(node: string, role: string): string | undefined {
    const id = this.#ids.get(node);
    const child = this.#childrenOf(id).find((one) => one.role === role);
    return child === undefined ? undefined : this.#names.get(child.id);
  }

  /** Whether a node is the `backing` of another one: a snapshot was made over it. */
  isBacking(node: string): boolean {
    const id = this.#ids.get(node);
    const all = [...this.#children.values()].flat();
    return all.some((child) => child.id === id && child.role === 'backing');
  }

  /** The jobs that use a node, or one below it. */
  jobsOn(node: string): string[] {
    const id = this.#ids.get(node);
    if (id === undefined) return [];
    const below = this.#reachable([id]);
    const users = this.#jobs.filter((job) => {
      const children = this.#childrenOf(job.id).map((child) => child.id);
      return [...this.#reachable(children)].some((one) => below.has(one));
    });
    return users.map(({ name }) => name);
  }

  #childrenOf(id: number | undefined): readonly { readonly id: number; readonly role: string }[] {
    return id === undefined ? [] : (this.#children.get(id) ?? []);
  }

  #reachable(from: readonly number[]): Set<number> {
    const found = new Set(from);
    for (const id of found) for (const child of this.#childrenOf(id)) found.add(child.id);
    return found;
  }
}
