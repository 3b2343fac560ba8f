import { realpathSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { BitmapAction } from '../../bitmap/index.js';
import type { BlockDevice } from '../../block/index.js';
import { walkPlan } from '../../copy/plan/index.js';
import { isSamePlace } from '../../files/index.js';
import { checkGiven, optionCheck } from '../../util/index.js';
import { Arena } from '../../wasm/index.js';
import {
  type BitmapChange,
  type Changer,
  type Changes,
  called,
  conflict,
  type Edge,
  fileBelow,
  formatBelow,
  type Node,
  type NodeDescription,
} from '../core/index.js';

/** A node that gets a new layer on top. */
export interface SnapshotDisk {
  /** The name of the node, which is only read from then on. */
  readonly node: string;
  /** The new layer: an image that holds nothing yet, and names the node's file as its backing file. */
  readonly overlay: NodeDescription;
  /**
   * `continue`: bitmaps of the node that record get one in the overlay that goes on, of the same name and granularity, and clean;
   * `copy`: all that are consistent get one that has what they have; `none`. Default `continue`.
   */
  readonly bitmaps?: 'continue' | 'copy' | 'none';
}

const BITMAPS: readonly string[] = ['continue', 'copy', 'none'];

const check = optionCheck<SnapshotDisk>({
  node: { needed: 'the name of the node that gets a new layer' },
  overlay: { needed: 'the description of the new layer' },
  bitmaps: 'any',
});

/** @throws TypeError for a snapshot that makes no sense. */
export function checkSnapshotDisk(where: string, disk: SnapshotDisk): void {
  checkGiven(where, 'disk', disk, '{ node, overlay }');
  check(where, disk);
  const { overlay, bitmaps = 'continue' } = disk;
  if (!BITMAPS.includes(bitmaps)) {
    throw new TypeError(`bitmaps must be ${BITMAPS.join(', ')}, not ${bitmaps}`);
  }
  if ('backing' in Object(overlay)) {
    throw new TypeError('leave "backing" out of the overlay: node says what it lies over');
  }
}

/**
 * Opens the new layer of a node, and tells what puts it into its place.
 *
 * @param opened gets the new node
 * @throws LacunaError ERR_GRAPH_CONFLICT where the image is not an empty one over the node; what opening throws.
 */
export async function openOverlay(
  changer: Changer,
  { node: name, overlay: description, bitmaps: carried = 'continue' }: SnapshotDisk,
  opened: Node[],
): Promise<Partial<Changes>> {
  const { state } = changer;
  const node = state.node(name);
  if (node.grows) {
    throw conflict(`${called(node)} is the file of an image: take the snapshot of that`);
  }
  const described = { ...(description as object), backing: node.name } as NodeDescription;
  const overlay = await changer.add(described, { writable: true, over: node });
  opened.push(overlay);
  const joined = state.view.from(overlay).filter(({ role }) => role === 'below');
  await checkOverlay(changer, overlay, node);
  const edges = usersOf(changer, node).map((edge) => {
    return { edge, expected: node, replacement: overlay, unsafe: false, isSame: true };
  });
  return { joined, edges, bitmaps: await carriedBitmaps(node, overlay, carried) };
}

/** Who sees the new layer from then on. Other images over the node go on with what it holds. */
function usersOf({ state: { view } }: Changer, node: Node): Edge[] {
  const users = view.to(node).filter(({ role, isPinned }) => {
    return role !== 'below' && role !== 'snapshot' && !isPinned;
  });
  const held = [...view.above(node)].map((each) => (each as Node).heldBy).find((job) => job);
  if (held !== undefined) {
    throw conflict(`${held} works on the layers of ${called(node)}: wait for its end, or stop it`);
  }
  const part = [...view.above(node)].find((each) => (each as Node).isOfJob) as Node | undefined;
  if (part !== undefined) {
    const message = `${called(part)} is a part of a job, which copies ${called(node)}: wait for its end, or stop it`;
    throw conflict(message);
  }
  const bound = users.find(({ role }) => BOUND.includes(role));
  if (bound === undefined) return users;
  const message = `${called(bound.parent)} keeps what it stores in ${called(node)} itself: end that use before the snapshot`;
  throw conflict(message);
}

const BOUND: readonly string[] = ['image', 'data file', 'part', 'filled disk', 'target'];

/** An image that holds something would show another disk, and one that names another file would after the next start. */
async function checkOverlay(changer: Changer, overlay: Node, node: Node): Promise<void> {
  const { device } = overlay;
  if (!(await isEmpty(device))) {
    const message = `${device.name} holds something already, and would show another disk than ${called(node)}: make a new image for the snapshot`;
    throw conflict(message);
  }
  const path = fileBelow(changer.state.view, node);
  const image = fileBelow(changer.state.view, overlay);
  if (path === undefined || image === undefined) return;
  const format = formatBelow(changer.state.view, node);
  if (format === undefined) {
    const message = `${called(node)} shows something else than ${path} holds as a disk, which is all that ${image} can name: take the snapshot of a node that shows that`;
    throw conflict(message);
  }
  const { backingFile, backingFormat = 'of no format' } = device.details ?? {};
  const named = backingNameOf(image, backingFile);
  if (named !== undefined && isSamePlace(named, path) && backingFormat === format) return;
  const found =
    named === undefined
      ? 'names no backing file'
      : `names ${named} (${backingFormat}) as its backing file`;
  const message = `${image} ${found}, and would not be found over ${path} (${format}) the next time: make it with Graph.create and over: '${node.name}', or run "lacuna rebase -u -F ${format} -b ${path}" on it`;
  throw conflict(message);
}

/** The path that an image means by a name in its header: looked for from where symbolic links to its folder lead. */
function backingNameOf(image: string, name: string | undefined): string | undefined {
  return name === undefined ? undefined : resolve(realpathSync(dirname(resolve(image))), name);
}

async function isEmpty(source: BlockDevice): Promise<boolean> {
  let holds = false;
  await walkPlan({
    scope: { mode: 'top', contexts: [], bitmaps: [] },
    source,
    arena: Arena.default,
    signal: undefined,
    visit: () => {
      holds = true;
    },
  });
  return !holds;
}

/** The bitmaps that the overlay gets, at the moment of the snapshot. */
async function carriedBitmaps(
  node: Node,
  overlay: Node,
  carried: 'continue' | 'copy' | 'none',
): Promise<BitmapChange[]> {
  const actions: BitmapAction[] = [];
  for (const { name, granularity, recording, persistent, inconsistent } of node.bitmaps) {
    if (carried === 'none' || inconsistent || (carried === 'continue' && !recording)) continue;
    actions.push({ type: 'add', name, granularity, persistent, disabled: !recording });
    if (carried === 'continue') continue;
    await node.bitmap(name);
    actions.push({ type: 'merge', target: name, sources: [{ bitmaps: node.log.bitmaps, name }] });
  }
  return [
    { node: overlay, actions },
    { node, actions: [] },
  ];
}
