import {
  type BlockDevice,
  type CommonDescription,
  type DeviceDescription,
  type Driver,
  type DriverKind,
  description,
  flag,
  type Opening,
  oneOf,
  passThrough,
  text,
} from '../../block/index.js';
import type { DetectZeroes } from '../../copy/index.js';
import { LacunaError } from '../../errors/index.js';
import { PulledLayers } from './pulled-layers.js';

/** Copies what is read from the layers below an image into the image, so that it is read from there the next time. */
export interface CopyOnReadDescription extends CommonDescription {
  /** Copies what is read into the top layer. */
  driver: 'copy-on-read';
  /** The image. */
  file: DeviceDescription | string;
  /** The lowest node of which anything is copied. Default: all that is below. */
  bottom?: string;
  /** What is copied and is nothing but zeroes is zeroed in the image, with `unmap` as a hole. Default `off`. */
  'detect-zeroes'?: DetectZeroes;
  /** What is zero in these layers is not copied: without them it reads as zero too. Only a job says so. Default false. */
  'target-is-zero'?: boolean;
}

/** The disk as it is; what is read of it comes to lie in its top layer. */
export const copyOnRead: DriverKind<CopyOnReadDescription> = {
  keys: {
    file: { read: description, required: true },
    bottom: { read: text },
    'detect-zeroes': { read: oneOf('off', 'on', 'unmap') },
    'target-is-zero': { read: flag },
  },
  isFilter: true,
  open: async (wanted, opening) => {
    const readOnly = wanted['read-only'] === true;
    const image = await opening.open(
      { ...(wanted.file as DeviceDescription), 'read-only': readOnly },
      { ...opening, as: { key: 'file', role: 'filled disk' } },
    );
    const layers = layersOf(wanted, image, opening);
    // Throws where the bottom is not below.
    layers();
    return driverOver(image, layers, wanted);
  },
};

/** How many layers are copied from, the top itself counted; Infinity for all. */
function layersOf(
  { bottom }: CopyOnReadDescription,
  image: BlockDevice,
  { layersTo }: Opening,
): () => number {
  if (bottom === undefined) return () => Number.POSITIVE_INFINITY;
  if (layersTo === undefined) throw new TypeError('bottom needs a graph, whose nodes have names');
  return () => {
    const layers = layersTo(image, bottom);
    if (layers !== undefined) return layers;
    const message = `node '${bottom}' does not lie below ${image.name}: bottom must be one of its layers`;
    throw new LacunaError('ERR_GRAPH_CONFLICT', message, { device: image.name });
  };
}

function driverOver(
  image: BlockDevice,
  layers: () => number,
  wanted: CopyOnReadDescription,
): Driver {
  const writable = wanted['read-only'] !== true;
  // Walked through once for each change of the graph.
  let known: number | undefined;
  const depth = () => {
    known ??= layers();
    return known;
  };
  const pulled = new PulledLayers(image, depth, {
    detectZeroes: wanted['detect-zeroes'] ?? 'off',
    targetIsZero: wanted['target-is-zero'] ?? false,
  });
  const around = passThrough(
    image,
    async ({ operation, offset, length, signal }, pass) => {
      if (operation === 'read') {
        // Who reads gets the bytes, whether or not they could be copied.
        if (writable) await pulled.take(offset, length, signal).catch(() => {});
        return await pass();
      }
      const changes = operation === 'write' || operation === 'zero' || operation === 'discard';
      return await (changes ? pulled.beside(offset, length, pass) : pass());
    },
    undefined,
    async () => void (await pulled.idle),
  );
  return Object.assign(around, {
    pull: pulled,
    settled: async () => void (await pulled.idle),
    changedBelow: () => {
      known = undefined;
    },
  });
}
