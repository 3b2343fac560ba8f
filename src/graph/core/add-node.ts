import {
  checkNamedDescription,
  type DeviceDescription,
  describeOpened,
  kindOf,
  type NamedDescription,
  type Opening,
} from '../../block/index.js';
import { LIVE_KINDS } from '../filters/index.js';
import type { NodeDescription } from './description.js';
import { Edge } from './edge.js';
import { called, conflict } from './failures.js';
import { Node } from './node.js';
import { checkUsers } from './permissions.js';
import type { GraphState } from './state.js';

const LIVE_KEYS = Object.fromEntries(
  Object.entries(LIVE_KINDS).map(([name, { keys }]) => [name, keys]),
);

type Described = DeviceDescription & NamedDescription;

/** How a node is opened, beside what its description says. */
export interface AddNodeOptions {
  /** Open for writing. Default false; what lies below an overlay is always for reading only. */
  readonly writable?: boolean;
  /** Ends opening; afterwards it has no effect. */
  readonly signal?: AbortSignal;
}

/**
 * Opens a node with everything that its description says below it. Where a part cannot be opened, none of it stays.
 *
 * @throws TypeError for a description that is none; LacunaError ERR_GRAPH_UNKNOWN, ERR_GRAPH_EXISTS, ERR_GRAPH_CONFLICT; what
 * `openDevice` throws.
 */
export async function addNode(
  state: GraphState,
  given: NodeDescription,
  { writable = false, signal }: AddNodeOptions,
): Promise<Node> {
  const { 'node-name': name, ...checked }: Described = checkNamedDescription(given, LIVE_KEYS);
  const named = name === undefined ? {} : { 'node-name': name };
  const described = { ...describeOpened(checked as DeviceDescription, { writable }), ...named };
  const bitsOf = async (of: string, bitmap: string) => {
    const bits = await state.node(of).bitmap(bitmap);
    return () => bits.snapshot();
  };
  const opening = { above: [], open: neverOpens, bitsOf, ...(signal && { signal }) };
  const adder = new Adder(state, () => state.freeName('node'));
  return adder.open(described, opening, false);
}

function neverOpens(): never {
  throw new TypeError('a node opens what is below it for itself');
}

/** Opens one node: its driver asks for the devices below it, which are nodes too. */
class Adder {
  readonly #state: GraphState;
  readonly #nameIt: () => string;

  constructor(state: GraphState, nameIt: () => string) {
    this.#state = state;
    this.#nameIt = nameIt;
  }

  async open(description: Described, opening: Opening, isOwned: boolean): Promise<Node> {
    const state = this.#state;
    const { 'node-name': given, ...own } = description;
    const kind = LIVE_KINDS[own.driver] ?? kindOf(own as DeviceDescription);
    const { isFilter = false } = kind;
    const name = given ?? this.#nameIt();
    state.checkFree(name);
    const writable = own['read-only'] !== true;
    const node = new Node({ name, driverName: own.driver, writable, isFilter, isOwned });
    const edges: Edge[] = [];
    const open = async (part: DeviceDescription, below: Opening) => {
      const edge = new Edge(node, below.as!, await this.#child(node, part, below));
      edges.push(edge);
      state.edges.add(edge);
      for (const each of state.view.reach(edge.to)) checkUsers(each, state.view);
      return edge;
    };
    try {
      const driver = await kind.open(own, { ...opening, open, live: true });
      node.begin(driver, opening.grows === true);
      state.checkFree(name);
    } catch (error) {
      for (const edge of edges) state.edges.delete(edge);
      await state.removeOwned(edges.map(({ to }) => to));
      throw error;
    }
    state.nodes.set(name, node);
    return node;
  }

  async #child(parent: Node, part: Described, below: Opening): Promise<Node> {
    if (part.node === undefined) {
      const nameIt = () => this.#state.freeName(`${parent.name}.${below.as!.key}`);
      return new Adder(this.#state, nameIt).open(part, below, true);
    }
    const node = this.#state.node(part.node);
    if (below.grows !== true || node.grows) return node;
    // As the file of an image it is as long as the image makes it, so nobody else can have it.
    if (this.#state.view.to(node).length > 0) {
      const message = `${called(parent)} would make ${called(node)} longer, which others use: end that first`;
      throw conflict(message);
    }
    node.letGrow();
    return node;
  }
}
