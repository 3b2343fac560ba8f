import { LacunaError } from '../../../errors/index.js';
import { called, conflict, type GraphState, type Node } from '../../core/index.js';

/** Layers of a chain that a job works on. */
export interface Layers {
  /** From the top down to the lowest one that goes. */
  readonly images: readonly Node[];
  /** The image below them, without the filters above it; undefined where there is none. */
  readonly base: Node | undefined;
}

/**
 * The layers from a node down to the one above a base.
 *
 * @param base undefined for all there are.
 * @throws LacunaError ERR_GRAPH_CONFLICT where the base is not below the node.
 */
export function layersBetween({ view }: GraphState, node: Node, base: Node | undefined): Layers {
  const images = view.layers(node);
  if (base === undefined) return { images, base };
  const image = view.unfiltered(base);
  const count = images.indexOf(image);
  if (count > 0) return { images: images.slice(0, count), base: image };
  throw notBelow(base, node, images);
}

/**
 * The layers from a node down to a bottom, that one counted.
 *
 * @throws LacunaError ERR_GRAPH_CONFLICT where the bottom is none of the node's layers.
 */
export function layersDownTo({ view }: GraphState, node: Node, bottom: Node): Layers {
  const images = view.layers(node);
  const at = images.indexOf(view.unfiltered(bottom));
  if (at < 0) throw notBelow(bottom, node, images);
  return { images: images.slice(0, at + 1), base: images[at + 1] };
}

function notBelow(base: Node, node: Node, images: readonly Node[]): LacunaError {
  const told = images.map(({ name }) => `'${name}'`).join(' > ');
  return conflict(
    `${called(base)} does not lie below ${called(node)}, whose layers are ${told}: name one of those`,
  );
}

/**
 * A job finds the images that it works on as they were until it ends, so no two jobs work on one of them.
 *
 * @param images from the top down.
 * @throws LacunaError ERR_GRAPH_CONFLICT
 */
export function refuseHeld({ view }: GraphState, images: readonly Node[]): void {
  for (const image of images) {
    for (const above of view.above(image)) {
      const { heldBy, heldLayers } = above as Node;
      if (heldBy === undefined || heldLayers?.has(image) === false) continue;
      const message = `${heldBy} works on ${called(image)}, which no other job can do at the same time: wait for its end, or stop it`;
      throw conflict(message);
    }
  }
}

/** Internal snapshots show what lies below too, and nobody can write them: they would show something else afterwards. */
export function refuseSnapshots(images: readonly Node[]): void {
  for (const { device } of images) {
    const count = device.details?.snapshots.length ?? 0;
    if (count === 0) continue;
    const message = `${device.name} has ${count} internal snapshots, which may show what lies below and would show something else afterwards: delete them first ("qemu-img snapshot -d"), or copy them into images of their own`;
    throw new LacunaError('ERR_IMAGE_CHAIN', message, { device: device.name });
  }
}
