/** `lacuna info --backing-chain`: the images of a chain, with the space that the files of each take. */
import { statSync } from 'node:fs';
import { type BlockDevice, type DeviceDescription, fileOf, imageOf } from '../../../block/index.js';

/** One layer of a chain, the top first, with the names that `qemu-img info --backing-chain` has for these. */
export interface LayerInfo {
  filename: string;
  format: string;
  /** Bytes of its disk. */
  'virtual-size': number;
  /** Bytes that its files take where they lie, a data file included; absent where they are no files here. */
  'actual-size'?: number;
}

/** The layers of an open device, from the top to the lowest. */
export function layersOf(device: BlockDevice): LayerInfo[] {
  const sizes = [device.size, ...(device.details?.chain ?? []).map(({ size }) => size)];
  const layers: LayerInfo[] = [];
  let below: DeviceDescription | undefined = device.description;
  for (const size of sizes) {
    if (below === undefined) break;
    layers.push(layerOf(below, size, layers.length === 0 ? device.name : undefined));
    below = imageOf(below)?.backing ?? undefined;
  }
  return layers;
}

function layerOf(
  description: DeviceDescription,
  size: number,
  name: string | undefined,
): LayerInfo {
  const image = imageOf(description);
  const own = image?.file ?? description;
  const files = [own, ...(image?.['data-file'] ? [image['data-file']] : [])];
  const paths = files.map((file) => fileOf(file)?.filename);
  const space = paths.map(spaceOf);
  const isKnown = space.every((bytes) => bytes !== undefined);
  return {
    filename: paths[0] ?? name ?? description.driver,
    format: image?.driver ?? (paths[0] === undefined ? description.driver : 'raw'),
    'virtual-size': size,
    ...(isKnown && { 'actual-size': space.reduce((sum, bytes) => sum! + bytes!, 0)! }),
  };
}

function spaceOf(path: string | undefined): number | undefined {
  if (path === undefined) return undefined;
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? undefined : stat.blocks * 512;
}
