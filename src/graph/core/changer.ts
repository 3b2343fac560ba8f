import { Serial } from '../../util/index.js';
import { type AddNodeOptions, addNode } from './add-node.js';
import type { NodeDescription } from './description.js';
import { busy } from './failures.js';
import type { Node } from './node.js';
import { checkUsers } from './permissions.js';
import { Root, type RootOptions } from './root.js';
import { GraphState } from './state.js';
import { type BitmapChange, type Changes, change } from './transaction.js';

/** What changes a graph. Everybody who changes something has its turn with `run`; the other methods are for who has it. */
export class Changer {
  readonly state = new GraphState();
  readonly #limitMs: number;
  readonly #turns = new Serial();

  /** @param limitMs for so long a change waits for the requests in flight. */
  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** Runs a task when all earlier ones have ended. */
  run<T>(task: () => Promise<T>): Promise<T> {
    return this.#turns.run(task);
  }

  /** Opens a node. */
  add(description: NodeDescription, options: AddNodeOptions): Promise<Node> {
    return addNode(this.state, description, options);
  }

  /** Changes edges and bitmaps at one moment, and closes what is not used any more. */
  async change({ edges = [], bitmaps = [], ...filters }: Partial<Changes>): Promise<void> {
    await change(this.state, { edges, bitmaps, ...filters }, this.#limitMs);
    await this.state.removeOwned(edges.map(({ expected }) => expected));
  }

  /** Lets an export or a job in. */
  enter(options: RootOptions): Root {
    const { state } = this;
    state.checkFree(options.name);
    const root = new Root(options, (closed) => this.#close(closed));
    state.edges.add(root.edge);
    try {
      for (const node of state.view.reach(root.node)) checkUsers(node, state.view);
      for (const node of state.view.used()) node.driver.firstUsed?.();
    } catch (error) {
      state.edges.delete(root.edge);
      throw error;
    }
    state.roots.set(root.name, root);
    return root;
  }

  /** Who closes waits for requests outside its turn: others do not wait for those. */
  async #close(root: Root): Promise<void> {
    for (let hasLeft = false; !hasLeft; ) {
      await root.gate.idle();
      hasLeft = await this.run(async () => {
        // What a change has held up was let in since.
        if (root.gate.inFlight > 0) return false;
        await this.leave(root);
        return true;
      });
    }
  }

  /** Takes an export or a job out, when its requests have ended. */
  async leave(root: Root): Promise<void> {
    // What a change has held up was let in since.
    await root.gate.idle();
    if (this.state.roots.get(root.name) === root) this.state.roots.delete(root.name);
    this.state.edges.delete(root.edge);
    await this.state.removeOwned([root.node]);
  }

  /** Lets the users of a node use a filter over it instead, and changes bitmaps at the same moment. */
  async moveUp(filters: readonly Node[], bitmaps: readonly BitmapChange[] = []): Promise<void> {
    const { view } = this.state;
    const edges = filters.flatMap((filter) => {
      const [{ to: below }] = view.from(filter);
      const users = view.to(below).filter(({ parent, role }) => {
        return parent !== filter && role !== 'snapshot';
      });
      return users.map((edge) => ({
        edge,
        expected: below,
        replacement: filter,
        unsafe: false,
      }));
    });
    await this.change({ edges, bitmaps, begins: filters });
  }

  /** Takes filters out and changes bitmaps, at one moment, and closes the filters. */
  async removeFilters(
    filters: readonly Node[],
    bitmaps: readonly BitmapChange[] = [],
  ): Promise<void> {
    const { state } = this;
    const { view } = state;
    const edges = filters.flatMap((filter) => {
      if (!filter.isFilter) throw new TypeError(`node '${filter.name}' is not a filter`);
      const users = view.to(filter);
      const reader = users.find(({ role }) => role === 'snapshot');
      if (reader !== undefined) {
        const told = `node '${reader.parent.name}' shows what '${filter.name}' keeps`;
        throw busy(`${told}: remove that first`);
      }
      const [{ to: below }] = view.from(filter);
      return users.map((edge) => ({ edge, expected: filter, replacement: below, unsafe: false }));
    });
    if (edges.length + bitmaps.length > 0) {
      await this.change({ edges, bitmaps, removed: filters });
    }
    for (const filter of filters) {
      if (state.nodes.get(filter.name) === filter) await state.remove(filter);
    }
  }
}
