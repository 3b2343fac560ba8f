/** Lays out an image over a base for what an increment will write, so that nothing but data is written then. */
import { Bitmap } from '../../bitmap/bits/index.js';
import {
  type BlockDevice,
  type DeviceDescription,
  layOutQcow2,
  openDevice,
  type Qcow2Options,
} from '../../block/index.js';
import { throwIfAborted } from '../../errors/index.js';
import { closeAfter } from '../../util/index.js';

/** What an increment writes as data, and what as zeroes; of one granularity. */
export interface Increment {
  readonly data: Bitmap;
  readonly zero: Bitmap;
}

export interface IncrementLayout {
  readonly path: string;
  readonly options: Qcow2Options & { readonly clusterSize: number };
  /** The new image with its mapping fixed, and its base. */
  readonly image: DeviceDescription;
  readonly base: DeviceDescription;
  readonly signal?: AbortSignal | undefined;
}

/** Bytes copied from the base at once. */
const PIECE = 1024 * 1024;

/**
 * Makes an image in which every cluster that an increment writes data into is mapped, and every one that it zeroes whole
 * says so. What the increment leaves alone of a mapped cluster is filled from the base: there, and not in the source, it
 * is as it was when the increment began to count.
 */
export async function layOutIncrement(layout: IncrementLayout, increment: Increment) {
  const { path, options } = layout;
  const { mapped, zeroed, rest } = clustersOf(increment, options.clusterSize);
  try {
    await layOutQcow2(path, options, mapped, zeroed);
    if (rest.count > 0) await fillFromBase(layout, rest);
  } finally {
    for (const bitmap of [mapped, zeroed, rest]) bitmap.free();
  }
}

/** Clusters that hold data, clusters that are zero, and those of the former that the increment writes only in part. */
function clustersOf({ data, zero }: Increment, clusterSize: number) {
  const { size, arena } = data;
  const clusters = { size, granularity: clusterSize, arena };
  const mapped = new Bitmap(clusters);
  mapped.merge(data);
  using others = new Bitmap({ size, granularity: zero.granularity, arena });
  others.setAll();
  others.subtract(zero);
  using partly = new Bitmap(clusters);
  partly.merge(others);
  const zeroed = new Bitmap(clusters);
  zeroed.merge(zero);
  // A cluster that is zeroed in part is written as data.
  partly.intersect(zeroed);
  mapped.merge(partly);
  zeroed.subtract(mapped);
  others.resetAll();
  others.merge(mapped);
  others.subtract(data);
  others.subtract(zero);
  // As whole clusters: many small pieces would take longer, and what is dirty is written behind that.
  const rest = new Bitmap(clusters);
  rest.merge(others);
  return { mapped, zeroed, rest };
}

async function fillFromBase({ image, base, signal }: IncrementLayout, rest: Bitmap): Promise<void> {
  const below = await openDevice(base, { signal });
  await closeAfter(
    async () => {
      const target = await openDevice(image, { writable: true, signal });
      await closeAfter(
        () => copyRanges(below, target, rest, signal),
        () => target.close(),
      );
    },
    () => below.close(),
  );
}

async function copyRanges(
  below: BlockDevice,
  target: BlockDevice,
  rest: Bitmap,
  signal?: AbortSignal,
) {
  const buffer = new Uint8Array(PIECE);
  for (const { offset, length } of rest.ranges()) {
    // Behind its end a base is zero, as the new image is.
    const end = Math.min(offset + length, below.size);
    for (let at = offset; at < end; at += PIECE) {
      throwIfAborted(signal);
      const piece = buffer.subarray(0, Math.min(PIECE, end - at));
      await below.read(at, piece);
      await target.write(at, piece);
    }
  }
}
