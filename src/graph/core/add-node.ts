import {
  type BlockDevice,
  checkNamedDescription,
  type DeviceDescription,
  type Driver,
  describeOpened,
  kindOf,
  type NamedDescription,
  type Opening,
} from '../../block/index.js';
import { Context } from '../../extent/index.js';
import { JOB_KINDS, type Kinds, LIVE_KINDS } from '../filters/index.js';
import type { NodeDescription } from './description.js';
import { Edge } from './edge.js';
import { called, conflict } from './failures.js';
import { FileBitmaps } from './file-bitmaps.js';
import { raiseLocks } from './locks.js';
import { Node } from './node.js';
import { checkUsers } from './permissions.js';
import { checkMayGrow } from './reopen.js';
import type { GraphState } from './state.js';

const ALL_KINDS: Kinds = { ...LIVE_KINDS, ...JOB_KINDS };
const LIVE_KEYS = keysOf(LIVE_KINDS);
const ALL_KEYS = keysOf(ALL_KINDS);

function keysOf(kinds: Kinds) {
  return Object.fromEntries(Object.entries(kinds).map(([name, { keys }]) => [name, keys]));
}

type Described = DeviceDescription & NamedDescription;

/** How a node is opened, beside what its description says. */
export interface AddNodeOptions {
  /** Open for writing. Default false; what lies below an overlay is always for reading only. */
  readonly writable?: boolean;
  /**
   * A file that keeps its bitmaps, for a raw disk, whose format has no place for them. It is made when they are stored for the first
   * time. Where others have written the disk since it was closed here, or nobody can tell, they are inconsistent.
   */
  readonly bitmapFile?: string;
  /** Nobody has written the disk since the bitmap file was stored: the caller knows, of a block device say. Default false. */
  readonly trustBitmaps?: boolean;
  /** Ends opening; afterwards it has no effect. */
  readonly signal?: AbortSignal;
}

/** As the graph itself opens a node. */
export interface NodeOpening extends AddNodeOptions {
  /** Only a filter will do. */
  readonly mustFilter?: boolean;
  /** It is a part of a job. Default false. */
  readonly isOfJob?: boolean;
  /** It comes to lie over this node later, at one moment with its users; until then others may write that. */
  readonly over?: Node;
}

/**
 * Opens a node with everything that its description says below it. Where a part cannot be opened, none of it stays.
 *
 * @throws TypeError for a description that is not valid; LacunaError ERR_GRAPH_UNKNOWN, ERR_GRAPH_EXISTS, ERR_GRAPH_CONFLICT; what
 * `openDevice` throws.
 */
export async function addNode(
  state: GraphState,
  given: NodeDescription,
  options: NodeOpening,
): Promise<Node> {
  const { writable = false, bitmapFile, trustBitmaps = false, signal } = options;
  const { mustFilter = false, isOfJob = false, over } = options;
  if (typeof given === 'string') {
    throw new TypeError(`a new node needs a description, such as { driver, ... }, not '${given}'`);
  }
  const { 'node-name': name, ...checked }: Described = checkNamedDescription(
    given,
    isOfJob ? ALL_KEYS : LIVE_KEYS,
  );
  if (mustFilter && !kindFor(checked).isFilter) {
    throw new TypeError(`${checked.driver} is not a filter`);
  }
  const named = name === undefined ? {} : { 'node-name': name };
  const described = { ...describeOpened(checked as DeviceDescription, { writable }), ...named };
  const bitsOf = async (of: string, bitmap: string) => {
    const bits = await state.node(of).bitmap(bitmap);
    return () => bits.snapshot();
  };
  const shownBitsOf = (device: BlockDevice) => bitsShownBy(state, device as Edge);
  const layersTo = (device: BlockDevice, below: string) => {
    return state.view.layersTo((device as Edge).to, state.node(below));
  };
  const opening = {
    ...{ above: [], open: neverOpens, bitsOf, shownBitsOf, layersTo, memoryOf: state.memoryOf },
    ...(signal && { signal }),
  };
  const adder = new Adder(state, () => state.freeName('node'));
  const file = bitmapFile === undefined ? {} : { bitmapFile, trustBitmaps };
  const joining = { isOfJob, ...file, ...(over && { over }) };
  return adder.open(described, opening, { isOwned: false, ...joining });
}

/** The bitmaps of the node below filters. What cannot be read is left out. */
async function bitsShownBy({ view }: GraphState, { to }: Edge) {
  const node = view.unfiltered(to);
  const loaded = new Set<string>();
  for (const { name, inconsistent } of node.bitmaps) {
    if (inconsistent) continue;
    const bits = await node.bitmap(name).catch(() => undefined);
    if (bits !== undefined) loaded.add(name);
  }
  return () => {
    const there = node.bitmaps.filter(({ name, persistent, inconsistent }) => {
      return !inconsistent && (loaded.has(name) || !persistent);
    });
    return new Map(
      there.map(({ name }) => [Context.dirtyPrefix + name, node.log.bitmaps.get(name).snapshot()]),
    );
  };
}

function kindFor(description: Omit<Described, 'node-name'>) {
  return ALL_KINDS[description.driver] ?? kindOf(description as DeviceDescription);
}

function neverOpens(): never {
  throw new TypeError('a node opens what is below it for itself');
}

/** How a node comes into a graph. */
interface OpenedAs {
  readonly isOwned: boolean;
  readonly isOfJob?: boolean;
  readonly bitmapFile?: string;
  readonly trustBitmaps?: boolean;
  readonly over?: Node;
}

/** Gives a node its driver, which is closed where that fails. */
async function beginNode(
  node: Node,
  driver: Driver,
  { grows, bitmapFile: path, trustBitmaps: isTrusted = false }: OpenedAs & { grows: boolean },
): Promise<void> {
  try {
    if (path === undefined) return node.begin(driver, grows);
    if (driver.keeps !== undefined) {
      throw new TypeError(`${driver.name} keeps its bitmaps itself: leave out bitmapFile`);
    }
    node.begin(
      driver,
      grows,
      new FileBitmaps(driver, { path, writable: node.writable, isTrusted }),
    );
  } catch (error) {
    await driver.close();
    throw error;
  }
}

/** Opens one node: its driver asks for the devices below it, which are nodes too. */
class Adder {
  readonly #state: GraphState;
  readonly #nameIt: () => string;

  constructor(state: GraphState, nameIt: () => string) {
    this.#state = state;
    this.#nameIt = nameIt;
  }

  async open(description: Described, opening: Opening, as: OpenedAs): Promise<Node> {
    const state = this.#state;
    const { 'node-name': given, ...own } = description;
    const kind = kindFor(own);
    const name = given ?? this.#nameIt();
    state.checkFree(name);
    const { isOwned, isOfJob = false } = as;
    const node = new Node({
      ...{ name, driverName: own.driver, writable: own['read-only'] !== true },
      ...{ isFilter: kind.isFilter ?? false, isOwned, isOfJob },
    });
    const edges: Edge[] = [];
    const above = { ...opening, live: true };
    const open = async (part: DeviceDescription, below: Opening) => {
      const child = await this.#child(node, part, below);
      const edge = new Edge(node, below.as!, child, child === as.over);
      edges.push(edge);
      state.edges.add(edge);
      const reached = state.view.reach(edge.to);
      for (const each of reached) checkUsers(each, state.view);
      await raiseLocks(reached, state.view);
      return edge;
    };
    try {
      const driver = await kind.open(own, { ...above, open });
      await beginNode(node, driver, { grows: opening.grows === true, ...as });
      state.checkFree(name);
    } catch (error) {
      // What went wrong first says more than what follows from it.
      await node.close().catch(() => {});
      await state.letGo(edges).catch(() => {});
      throw error;
    }
    if (edges.length > 0) {
      node.openAnew = async (wanted) => kind.open(...this.#anew(node, own, wanted, above));
    }
    state.nodes.set(name, node);
    return node;
  }

  /** How a node is opened once more: what is below it stays open. */
  #anew(node: Node, own: Omit<Described, 'node-name'>, writable: boolean, opening: Opening) {
    const edges = this.#state.view.from(node);
    const backing = edges.find(({ key }) => key === 'backing');
    const open = async (_part: DeviceDescription, { as }: Opening) => {
      return edges.find(({ key }) => key === as!.key)!;
    };
    const description = {
      ...own,
      'read-only': !writable,
      // It may have another one by now than its header says, or none.
      ...('backing' in kindFor(own).keys && {
        backing: backing === undefined ? null : { node: backing.to.name },
      }),
    };
    return [description as never, { ...opening, open }] as const;
  }

  async #child(parent: Node, part: Described, below: Opening): Promise<Node> {
    if (part.node === undefined) {
      const nameIt = () => this.#state.freeName(`${parent.name}.${below.as!.key}`);
      return new Adder(this.#state, nameIt).open(part, below, { isOwned: true });
    }
    const node = this.#state.node(part.node);
    if (below.grows !== true || node.grows) return node;
    // As the file of an image it is as long as the image makes it, so nobody else can have it.
    if (this.#state.view.to(node).length > 0) {
      const message = `${called(parent)} would make ${called(node)} longer, which others use: end that first`;
      throw conflict(message);
    }
    checkMayGrow(node);
    await node.driver.lock?.change('write');
    node.letGrow();
    return node;
  }
}
