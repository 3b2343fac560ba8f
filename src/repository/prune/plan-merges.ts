/** What becomes of the images of points that go: which are merged into what stays, and which are kept as they are. */
import { Bitmap } from '../../bitmap/index.js';
import { type Layer, layersOf, type MachinePoints, withDigests } from '../disks/index.js';
import { DIGEST_BLOCK, type LeafFile, type LeafRun } from '../leaves/index.js';
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
/** Of what images hold, one part in so many may have been written over. */
const MOST_OVERWRITTEN = 3;

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
    // Where only images of removed points lie between, an earlier prune has left them there, and nothing has changed since.
    if (between.every(({ isGone }) => isGone)) continue;
    const taken = await withDigests(points, number, name, async ({ files }) =>
      worthMerging([own, ...between], files, smallImage),
    );
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
 * it anew each time the oldest point goes would cost far more than it frees. Each image that is left is more than twice as large
 * as all above it, so chains stay short, and no more than a third of what the images hold has been written over.
 *
 * @param images that of the point first
 * @param files the leaves of each
 */
function worthMerging(
  images: readonly Layer[],
  files: readonly LeafFile[],
  smallImage: number,
): number {
  const overwritten = overwrittenIn(files.slice(0, images.length));
  const above = { bytes: 0, held: 0, overwritten: 0 };
  let taken = 0;
  for (const [i, { state }] of images.entries()) {
    const isLarge = state.size > Math.max(smallImage, FACTOR * above.bytes);
    above.bytes += state.size;
    above.held += overwritten[i].held;
    above.overwritten += overwritten[i].overwritten;
    // Not only down to the first that is large: one below it may be what it has written over.
    if (!isLarge || above.overwritten * MOST_OVERWRITTEN > above.held) taken = i;
  }
  return taken;
}

/** How many bytes of data each image holds, and how many of these the images above it have written over, zeroed, or cut off. */
function overwrittenIn(files: readonly LeafFile[]): { held: number; overwritten: number }[] {
  const size = Math.max(...files.map(({ blocks }) => blocks)) * DIGEST_BLOCK;
  const covered = new Bitmap({ size, granularity: DIGEST_BLOCK });
  const range = ({ first, blocks }: LeafRun) =>
    [first * DIGEST_BLOCK, blocks * DIGEST_BLOCK] as const;
  try {
    return files.map(({ runs, blocks }) => {
      const data = runs.filter(({ isZero }) => !isZero);
      const held = data.reduce((sum, run) => sum + range(run)[1], 0);
      const overwritten = data.reduce((sum, run) => sum + covered.countIn(...range(run)), 0);
      for (const run of runs) covered.set(...range(run));
      const end = blocks * DIGEST_BLOCK;
      covered.set(end, size - end);
      return { held, overwritten };
    });
  } finally {
    covered.free();
  }
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
