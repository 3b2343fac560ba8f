import { Bitmap } from '../../../bitmap/index.js';
import type { BlockDevice } from '../../../block/index.js';
import { Context, readsAsZero } from '../../../extent/index.js';
import type { JobControl } from '../../../job/index.js';

/** Of the plan. What is in it is looked at again when its turn comes. */
const GRANULE = 65_536;
/** Moved at once. */
const PIECE = 1024 * 1024;
/** Of zeroes, which cost next to nothing; short enough that nobody waits long for the range. */
const ZERO_PIECE = 16 * PIECE;

/** A part of a disk that is moved at once. */
export interface Piece {
  readonly offset: number;
  readonly length: number;
  readonly isZero: boolean;
}

/** What some layers of a chain hold. */
export interface LayerPlan {
  readonly totalBytes: number;
  pieces(): Generator<Piece>;
  free(): void;
}

/**
 * Finds what lies in some layers of a chain: 1 is the top. Nothing of it is read.
 *
 * @param device the top of the chain.
 */
export async function planLayers(
  device: BlockDevice,
  { from, to }: { from: number; to: number },
  control: Pick<JobControl, 'next' | 'ending'>,
): Promise<LayerPlan> {
  const { size } = device;
  const data = new Bitmap({ size, granularity: GRANULE });
  const zero = new Bitmap({ size, granularity: GRANULE });
  try {
    for (let at = 0; at < size; ) {
      await control.next();
      at = await addSome({ device, data, zero }, at, { from, to, signal: control.ending });
    }
  } catch (error) {
    data.free();
    zero.free();
    throw error;
  }
  zero.subtract(data);
  const free = () => {
    data.free();
    zero.free();
  };
  const totalBytes = data.dirtyBytes + zero.dirtyBytes;
  return { totalBytes, pieces: () => piecesOf(data, zero), free };
}

/** Adds what one question answers, and returns where that ends. */
async function addSome(
  { device, data, zero }: { device: BlockDevice; data: Bitmap; zero: Bitmap },
  at: number,
  { from, to, signal }: { from: number; to: number; signal: AbortSignal },
): Promise<number> {
  const contexts = [Context.allocation, Context.depth];
  const [status, depths] = await device.someExtents(at, device.size - at, { contexts, signal });
  const end = Math.min(device.size, status.end, depths.end);
  for (let i = 0, j = 0, offset = at; offset < end; ) {
    const stop = Math.min(end, status.endAt(i), depths.endAt(j));
    const depth = depths.flagsAt(j);
    if (depth >= from && depth <= to) {
      const bits = readsAsZero(status.flagsAt(i)) ? zero : data;
      bits.set(offset, stop - offset);
    }
    if (status.endAt(i) === stop) i++;
    if (depths.endAt(j) === stop) j++;
    offset = stop;
  }
  return end;
}

function* piecesOf(data: Bitmap, zero: Bitmap): Generator<Piece> {
  for (const isZero of [false, true]) {
    const most = isZero ? ZERO_PIECE : PIECE;
    for (const { offset, length } of (isZero ? zero : data).ranges()) {
      for (let at = offset; at < offset + length; ) {
        const end = Math.min(offset + length, at - (at % most) + most);
        yield { offset: at, length: end - at, isZero };
        at = end;
      }
    }
  }
}
