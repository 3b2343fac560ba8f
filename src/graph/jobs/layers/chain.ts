import { LacunaError } from '../../../errors/index.js';
import type { GraphState, Node } from '../../core/index.js';

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
  const told = images.map(({ name }) => `'${name}'`).join(' > ');
  const message = `node '${base.name}' does not lie below node '${node.name}', whose layers are ${told}: name one of those`;
  throw new LacunaError('ERR_GRAPH_CONFLICT', message);
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
