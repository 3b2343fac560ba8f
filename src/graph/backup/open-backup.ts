import type { BitmapAction } from '../../bitmap/index.js';
import { optionCheck } from '../../util/index.js';
import type { Changer, Node, NodeDescription } from '../core/index.js';
import { BackupDisk } from './backup-disk.js';
import { GraphBackup, type KeptNode } from './graph-backup.js';

/** A backup of nodes. */
export interface BackupOptions {
  /** The nodes, by their names. */
  readonly nodes: readonly string[];
  /**
   * A bitmap that each of the nodes has: of those, what is dirty there is taken. A node without one is taken in full, and gets the
   * bitmap. Default: all nodes are taken in full, and no bitmap is touched.
   */
  readonly bitmap?: string;
  /** Bitmaps that are added are kept with their disk. Default false. */
  readonly persistent?: boolean;
  /**
   * Where the old content of a node goes when that is written meanwhile, by the name of the node: the description or the name of a
   * node that nobody else uses, at least as large. Default: memory.
   */
  readonly scratch?: Readonly<Record<string, NodeDescription | string>>;
  /**
   * Seconds that a write waits for the copy of what it changes; then the view is lost, and the write goes on. 0: for as long as it takes.
   * Default 30.
   */
  readonly copyTimeout?: number;
}

const checkBackupOptions = optionCheck<BackupOptions>({
  nodes: { needed: 'the names of the nodes' },
  bitmap: 'any',
  persistent: 'flag',
  scratch: 'any',
  copyTimeout: 'any',
});

const COPY_SECONDS = 30;

/** What is there of a disk before it is kept. */
interface Prepared {
  readonly node: Node;
  readonly isIncremental: boolean;
  readonly scratch: Node | undefined;
  readonly filter: Node;
  readonly view: Node;
}

/** Begins a backup; see `Graph.openBackup`. */
export async function openBackup(changer: Changer, options: BackupOptions): Promise<GraphBackup> {
  checkBackupOptions('Graph.openBackup', options);
  checkNames(options);
  return changer.run(() => begin(changer, options));
}

async function begin(changer: Changer, options: BackupOptions): Promise<GraphBackup> {
  const { state } = changer;
  const control = new AbortController();
  const opened: Node[] = [];
  const kept: KeptNode[] = [];
  try {
    const prepared: Prepared[] = [];
    for (const name of options.nodes) {
      prepared.push(await prepare(changer, state.node(name), { options, opened }));
    }
    const { signal } = control;
    for (const one of prepared) kept.push(await keep(changer, one, { options, signal }));
    // The point in time of all of them.
    await changer.moveUp(
      prepared.map(({ filter }) => filter),
      prepared.map((one) => ({ node: one.node, actions: actionsOf(one, options).begin })),
    );
    return new GraphBackup(changer, kept, control);
  } catch (error) {
    await changer.takeBack(
      kept.map(({ reader }) => reader),
      opened.reverse(),
    );
    throw error;
  }
}

/** Opens what keeps a disk, and does not begin yet. @param opened gets every node that was opened. */
async function prepare(
  changer: Changer,
  node: Node,
  { options, opened }: { options: BackupOptions; opened: Node[] },
): Promise<Prepared> {
  const { state } = changer;
  const { bitmap, scratch = {}, copyTimeout = COPY_SECONDS } = options;
  const nameFor = (what: string) => state.freeName(`${node.name}.${what}`);
  const add = async (description: NodeDescription): Promise<Node> => {
    const added = await changer.add(description, { writable: true });
    opened.push(added);
    return added;
  };
  const given = scratch[node.name] ?? { driver: 'memory', size: node.size };
  const target =
    typeof given === 'string'
      ? state.node(given)
      : await add({ 'node-name': nameFor('scratch'), ...given } as NodeDescription);
  const isIncremental = bitmap !== undefined && node.bitmaps.some(({ name }) => name === bitmap);
  const filter = await add({
    driver: 'copy-before-write',
    'node-name': nameFor('kept'),
    file: node.name,
    target: target.name,
    'on-cbw-error': 'break-snapshot',
    'cbw-timeout': copyTimeout,
    ...(isIncremental && { bitmap: { node: node.name, name: bitmap } }),
  });
  const view = await add({
    driver: 'snapshot-access',
    'node-name': nameFor('view'),
    file: filter.name,
  });
  const scratchNode = typeof given === 'string' ? undefined : target;
  return { node, isIncremental, scratch: scratchNode, filter, view };
}

/** What happens to the bitmap at the point in time, and at the end. */
function actionsOf(
  { isIncremental }: Prepared,
  { bitmap, persistent = false }: BackupOptions,
): Record<'begin' | 'whenGood' | 'whenBad', readonly BitmapAction[]> {
  if (bitmap === undefined) return { begin: [], whenGood: [], whenBad: [] };
  const name = bitmap;
  if (!isIncremental) {
    return {
      begin: [{ type: 'add', name, persistent }],
      whenGood: [],
      whenBad: [{ type: 'remove', name }],
    };
  }
  return {
    begin: [{ type: 'freeze', name }],
    whenGood: [{ type: 'abdicate', name }],
    whenBad: [{ type: 'reclaim', name }],
  };
}

/** Lets a disk be read as it was. */
async function keep(
  changer: Changer,
  one: Prepared,
  { options, signal }: { options: BackupOptions; signal: AbortSignal },
): Promise<KeptNode> {
  const { node, isIncremental, view } = one;
  const { bitmap } = options;
  const name = changer.state.freeName(`${node.name}.reader`);
  const device = await changer.enter({ name, what: 'backup', node: view, writable: true });
  const { bitmaps } = node.log;
  // It is frozen as long as the backup lasts.
  const dirty = isIncremental ? () => bitmaps.get(bitmap!).snapshot() : undefined;
  const disk = new BackupDisk({ name: node.name, device, dirty, signal });
  const { whenGood, whenBad } = actionsOf(one, options);
  return { ...one, reader: device, disk, whenGood, whenBad };
}

function checkNames({ nodes, bitmap, copyTimeout = COPY_SECONDS }: BackupOptions): void {
  const isList = Array.isArray(nodes) && nodes.every((name) => typeof name === 'string');
  if (!isList || nodes.length === 0 || new Set(nodes).size < nodes.length) {
    throw new TypeError('nodes must be a list of names, one or more, each once');
  }
  if (bitmap !== undefined && typeof bitmap !== 'string') {
    throw new TypeError(`bitmap must be the name of a bitmap, not ${JSON.stringify(bitmap)}`);
  }
  if (!(copyTimeout >= 0 && copyTimeout <= 2_000_000)) {
    throw new RangeError(`copyTimeout must be 0 to 2000000 seconds, not ${copyTimeout}`);
  }
}
