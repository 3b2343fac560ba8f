/** What becomes of the images of points that go: which are merged into what stays, and which are kept as they are. */
import { type Layer, layersOf, type MachinePoints } from '../disks/index.js';
import type { GoneImage, ImageState, Manifest } from '../manifest/index.js';

/** A disk of a point that stays, over images of points that go or are gone. */
export interface PlannedDisk {
  /** The number of the point. */
  readonly point: number;
  readonly disk: string;
  /** The point that it is going to lie over, below the images that are left; null where there is none. */
  readonly over: number | null;
  /** How many images below its own are merged into that. */
  readonly taken: number;
  /** The images below those, whose points are gone. */
  readonly left: readonly GoneImage[];
}

/** An image that is larger by this factor than all above it is left, so that each byte is written a few times at most. */
const FACTOR = 2;

/**
 * The disks of a point that lie over images of points that go, and what is done about them.
 *
 * @param kept numbers of the points that stay
 * @param smallImage bytes of an image that is always merged
 */
export async function planMerges(
  points: MachinePoints,
  { number, disks }: Manifest,
  kept: ReadonlyMap<number, unknown>,
  smallImage: number,
): Promise<PlannedDisk[]> {
  const planned: PlannedDisk[] = [];
  for (const { name } of disks) {
    const [own, ...below] = await layersOf(points, number, name);
    const end = below.findIndex((layer) => !layer.isGone && kept.has(layer.number));
    const between = end === -1 ? below : below.slice(0, end);
    const taken = worthMerging(own, between, smallImage);
    if (taken === 0 && between.every(({ isGone }) => isGone)) continue;
    const over = below[end]?.number ?? null;
    planned.push({
      ...{ point: number, disk: name, over, taken },
      left: between.slice(taken).map(goneImage),
    });
  }
  return planned;
}

/**
 * How many images are merged into the one above them. A full image is many times as large as what changes in a day: to write
 * it anew each time the oldest point goes would cost far more than it frees. What is left below is at least twice as
 * large as all above it, so no more than a third of the space is taken by what has been written over.
 */
function worthMerging(own: Layer, between: readonly Layer[], smallImage: number): number {
  let bytes = own.state.size;
  const end = between.findIndex(({ state: { size } }) => {
    if (size > Math.max(smallImage, FACTOR * bytes)) return true;
    bytes += size;
    return false;
  });
  return end === -1 ? between.length : end;
}

function goneImage({ number, state }: Layer): GoneImage {
  const { parent: _, below: __, ...file } = state;
  return { ...file, number };
}

/** What a manifest says of an image that lies over something else from now on. */
export function placed(
  { parent: _, below: __, ...file }: ImageState,
  { over, left }: PlannedDisk,
): ImageState {
  return { ...file, parent: over, ...(left.length > 0 && { below: left }) };
}
