import { LacunaError } from '../../errors/index.js';
import { isDirtyContext } from '../../extent/index.js';
import { Serial } from '../../util/index.js';
import { addNode, type NodeOpening } from './add-node.js';
import type { NodeDescription } from './description.js';
import { drained } from './drain.js';
import { busy, called, conflict } from './failures.js';
import { lowerLocks, raiseLocks } from './locks.js';
import type { Node } from './node.js';
import { checkUsers, usersNeed } from './permissions.js';
import { growNode, setWritable } from './reopen.js';
import { checkNotHeld } from './replacement.js';
import { checkResize } from './resize.js';
import { Root, type RootOptions } from './root.js';
import { GraphState } from './state.js';
import { type BitmapChange, type Changes, change } from './transaction.js';

/** What changes beside the filters that are taken out. */
export type MovingDown = Partial<Omit<Changes, 'removed'>>;

/** What changes a graph. Everybody who changes something has its turn with `run`; the other methods are for who has it. */
export class Changer {
  readonly state = new GraphState();
  readonly #limitMs: number;
  readonly #turns = new Serial();
  #isClosed = false;

  /** @param limitMs for so long a change waits for the requests in flight. */
  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** Runs a task when all earlier ones have ended. What becomes of it is told, whatever becomes of locks behind it. */
  run<T>(task: () => Promise<T>): Promise<T> {
    return this.#turns.run(async () => {
      try {
        return await task();
      } finally {
        await lowerLocks(this.state.nodes.values(), this.state.view);
      }
    });
  }

  /** Lets nothing in any more, behind what was asked for earlier. */
  close(): Promise<void> {
    return this.run(async () => {
      this.#isClosed = true;
    });
  }

  /** @throws LacunaError ERR_DEVICE_CLOSED */
  checkOpen(): void {
    if (!this.#isClosed) return;
    throw new LacunaError('ERR_DEVICE_CLOSED', 'the graph is closed: make a new one');
  }

  /** Opens a node. */
  async add(description: NodeDescription, options: NodeOpening): Promise<Node> {
    this.checkOpen();
    return addNode(this.state, description, options);
  }

  /** Changes edges and bitmaps at one moment, and closes what is not used any more. */
  async change(changes: Partial<Changes>): Promise<void> {
    await this.state.removeOwned(await this.changeAndKeep(changes));
  }

  /**
   * The same, but closes nothing.
   *
   * @returns the nodes that lost a user, for `state.removeOwned`.
   */
  async changeAndKeep({ edges = [], bitmaps = [], ...filters }: Partial<Changes>): Promise<Node[]> {
    await change(this.state, { edges, bitmaps, ...filters }, this.#limitMs);
    return edges.map(({ expected }) => expected);
  }

  /**
   * Opens a node for writing that is open for reading only, or ends that; see {@link setWritable}. It stays open for writing while
   * somebody else writes it. One that was removed meanwhile is left alone: it is closed, and its descriptors may be those of other
   * files by now.
   */
  async setWritable(node: Node, writable: boolean): Promise<void> {
    if (writable) return setWritable(this.state, node, true);
    const isThere = this.state.nodes.get(node.name) === node;
    if (!isThere || !node.writable || usersNeed(node, this.state.view).includes('write')) return;
    await this.#still(node, () => setWritable(this.state, node, false));
  }

  /** Makes the disk of a node that is written larger; what is added reads as zero. */
  async grow(node: Node, size: number): Promise<void> {
    if (node.size >= size) return;
    await raiseLocks([node], this.state.view, 'write');
    await this.#still(node, () => growNode(node, size));
  }

  /** The same, but only where all users of the node allow it. @throws as {@link checkResize}. */
  async resize(node: Node, size: number): Promise<void> {
    checkResize(node, size, this.state.view);
    await this.grow(node, size);
  }

  async #still(node: Node, finish: () => Promise<void>): Promise<void> {
    const nothing = { prepare: async () => {}, assign: () => {} };
    await drained(this.state.stillness([node]), this.#limitMs, { ...nothing, finish });
  }

  /** Lets an export or a job in. */
  async enter(options: RootOptions): Promise<Root> {
    const { state } = this;
    this.checkOpen();
    state.checkFree(options.name);
    const root = new Root(options, (closed) => this.#close(closed));
    state.edges.add(root.edge);
    try {
      const below = state.view.reach(root.node);
      for (const node of below) checkUsers(node, state.view);
      await raiseLocks(below, state.view);
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
    await this.change({ ...this.upwards(filters), bitmaps });
  }

  /** What lets the users of nodes use filters over them instead. */
  upwards(filters: readonly Node[]): Pick<Changes, 'edges' | 'begins'> {
    const { view } = this.state;
    const edges = filters.flatMap((filter) => {
      const [{ to: below }] = view.from(filter);
      const users = view.to(below).filter(({ parent, role, isPinned }) => {
        return parent !== filter && role !== 'snapshot' && !isPinned;
      });
      return users.map((edge) => ({
        edge,
        expected: below,
        replacement: filter,
        unsafe: false,
      }));
    });
    return { edges, begins: filters };
  }

  /**
   * Takes filters out and closes them.
   *
   * @param unused nodes that only the filters have used; they are closed behind them.
   * @param others what else changes at the same moment.
   */
  async removeFilters(
    filters: readonly Node[],
    { unused = [], ...others }: MovingDown & { unused?: readonly Node[] } = {},
  ): Promise<void> {
    await this.moveDown(filters, others);
    await this.state.removeAll([...filters, ...unused]);
  }

  /** Lets the users of filters use what is below them again. @param others what else changes at the same moment. */
  async moveDown(filters: readonly Node[], others: MovingDown = {}): Promise<void> {
    const { edges, removed } = this.downwards(filters);
    const all = [...edges, ...(others.edges ?? [])];
    if (all.length > 0 || others.bitmaps?.length || others.ended?.length || others.prepare) {
      await this.change({ ...others, edges: all, removed });
    }
  }

  /** What lets the users of filters use what is below them again. */
  downwards(
    filters: readonly Node[],
  ): Pick<Changes, 'edges'> & { readonly removed: readonly Node[] } {
    const { view } = this.state;
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
    return { edges, removed: filters };
  }

  /**
   * What lets the users of a filter use another node instead, which holds the same at that moment. The filter stays.
   *
   * @param except goes on using the filter.
   * @throws LacunaError ERR_GRAPH_CONFLICT where an export shows a bitmap that the other node does not have.
   */
  pivoting(
    filter: Node,
    target: Node,
    except: Root,
  ): Pick<Changes, 'edges' | 'begins' | 'removed'> {
    const { state } = this;
    checkContexts(state, filter, target);
    checkNotHeld(filter, state.view);
    const change = { expected: filter, replacement: target, unsafe: false, isSame: true };
    const edges = state.view
      .to(filter)
      .filter((edge) => edge !== except.edge)
      .map((edge) => ({ edge, ...change }));
    return { edges, begins: [filter], removed: [filter] };
  }

  /** A node, and what it shows through filters, down to the first that is none. */
  path(node: Node): Node[] {
    if (!node.isFilter) return [node];
    const [edge] = this.state.view.from(node);
    return [node, ...this.path(edge.to)];
  }

  /** Takes back what was begun and has failed. A failure of this is not told: the first error says more. */
  async takeBack(roots: readonly Root[], nodes: readonly Node[]): Promise<void> {
    for (const root of roots) await this.leave(root).catch(() => {});
    await this.state.removeAll(nodes).catch(() => {});
  }
}

/** An export promises what it shows for its whole life. What a view shows is of its own moment, and stays. */
function checkContexts({ view, roots }: GraphState, filter: Node, target: Node): void {
  const { contexts } = target.device.capabilities;
  const above = view.above(filter, 'snapshot');
  for (const root of roots.values()) {
    const lost = root.capabilities.contexts.find(
      (each) => isDirtyContext(each) && !contexts.includes(each),
    );
    if (lost === undefined || !above.has(root)) continue;
    throw conflict(
      `${called(root)} shows ${lost}, which ${called(target)} does not have: remove the export first`,
    );
  }
}
