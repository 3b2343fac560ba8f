import type { BackingName } from '../../../block/index.js';
import {
  called,
  conflict,
  type Edge,
  type GraphState,
  type Node,
  usersNeed,
} from '../../core/index.js';
import { layersBetween, nameFor, refuseHeld, refuseSnapshots } from '../layers/index.js';
import type { CheckedCommit } from './options.js';

/** An image above the ones that are committed, and how it names the base then. */
export interface Overlay {
  readonly node: Node;
  readonly name: BackingName;
}

/** What a commit works on. */
export interface ChainToCommit {
  /** From the top down to the one above the base. */
  readonly images: readonly Node[];
  readonly base: Node;
  /** Images over the top, through filters or not. */
  readonly overlays: readonly Overlay[];
  /** Every use of a node between the top and the base. */
  readonly path: readonly Edge[];
  /** The nodes from the top to the base, with the filters between them. */
  readonly nodes: readonly Node[];
  /** Somebody may write the top. */
  readonly isActive: boolean;
  /** How far what lies behind the end of the top may be seen through the images above it. */
  readonly seenBytes: number;
}

/**
 * Looks at a chain before anything of it is changed.
 *
 * @throws LacunaError ERR_GRAPH_CONFLICT where others use what would change under them, or sizes do not fit; ERR_IMAGE_CHAIN.
 */
export function chainToCommit(
  state: GraphState,
  { node, base: wanted, backing }: CheckedCommit,
): ChainToCommit {
  const { images, base } = layersBetween(state, state.node(node), state.node(wanted));
  const [top] = images;
  const bottom = images.at(-1)!;
  refuseSnapshots(images);
  refuseHeld(state, [...images, base!]);
  const overlays = overlaysOf(state, top).map((overlay) => ({
    node: overlay,
    name: backing ?? nameFor(state, overlay, base!, bottom),
  }));
  const seenBytes = Math.max(top.size, ...overlays.map((overlay) => overlay.node.size));
  const chain = { images, base: base!, overlays, seenBytes };
  const path = pathOf(state, top, base!);
  checkAlone(state, path);
  checkSize(state, chain);
  const nodes = [top, ...path.map(({ to }) => to)];
  return { ...chain, path, nodes, isActive: usersNeed(top, state.view).includes('write') };
}

/**
 * The images over the top must be those that were there when the commit began. Another one would get the base, and go on naming the
 * top in its header; so would one that is gone, when it is opened again.
 *
 * @throws LacunaError ERR_GRAPH_CONFLICT
 */
export function checkOverlays(
  state: GraphState,
  filter: Node,
  { images: [top], overlays }: ChainToCommit,
): void {
  const now = overlaysOf(state, filter);
  const other = now.find((each) => !overlays.some(({ node }) => node === each));
  if (other !== undefined) {
    const message = `${called(other)} has come to lie over ${called(top)} while that was committed, and its header would go on naming it: remove ${called(other)}, and commit again`;
    throw conflict(message);
  }
  const gone = overlays.find(({ node }) => !now.includes(node));
  if (gone === undefined) return;
  const message = `${called(gone.node)} does not lie over ${called(top)} any more, which was committed meanwhile, and its header would go on naming it: commit again with it in its place, or without it from the beginning`;
  throw conflict(message);
}

/** The images that a node lies below, through filters or not. */
function overlaysOf({ view }: GraphState, node: Node): Node[] {
  return view.to(node).flatMap(({ parent, role }) => {
    if (role === 'below') return [parent as Node];
    const isFilter = (parent as Node).isFilter === true && role !== 'target';
    return isFilter ? overlaysOf({ view } as GraphState, parent as Node) : [];
  });
}

/** The uses of nodes from the top of a chain down to its base, those by filters too. */
function pathOf({ view }: GraphState, top: Node, base: Node): Edge[] {
  const path: Edge[] = [];
  for (let at = top; at !== base; ) {
    const edge = view.from(at).find(({ role }) => role !== 'image' && role !== 'data file')!;
    path.push(edge);
    at = edge.to;
  }
  return path;
}

/** What is below the top shows something else from the first piece on, so nobody else may look at it. */
function checkAlone({ view }: GraphState, path: readonly Edge[]): void {
  for (const edge of path) {
    const other = view.to(edge.to).find((one) => one !== edge);
    if (other === undefined) continue;
    const message = `${called(edge.to)} is used as ${edge.label}, which is committed, and as ${other.label}, which would show something else then: end that use first`;
    throw conflict(message);
  }
}

/** Exports, and filters above the top, keep their size; an image above may be of any. */
function checkSize(
  { view }: GraphState,
  { images: [top], base }: Pick<ChainToCommit, 'images' | 'base'>,
): void {
  if (base.size <= top.size) return;
  const user = view.to(top).find(({ role }) => role !== 'below');
  if (user === undefined) return;
  const message = `${called(base)} has ${base.size} bytes, and ${called(top)} has ${top.size}, which ${user.label} keeps: a base that is larger cannot come in its place`;
  throw conflict(message);
}
