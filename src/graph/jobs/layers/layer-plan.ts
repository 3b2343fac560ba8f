import { Bitmap } from '../../../bitmap/index.js';
import type { BlockDevice } from '../../../block/index.js';
import { Context, readsAsZero } from '../../../extent/index.js';
import type { JobControl } from '../../../job/index.js';
import type { RoundPlan } from '../rounds/index.js';

/** Of the plan. What is in it is looked at again when its turn comes. */
const GRANULE = 65_536;

/**
 * Finds what lies in some layers of a chain: 1 is the top. Nothing of it is read. The caller frees what it gets.
 *
 * @param device the top of the chain.
 */
export async function planLayers(
  device: BlockDevice,
  { from, to }: { from: number; to: number },
  control: Pick<JobControl, 'next' | 'ending'>,
): Promise<RoundPlan> {
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
  return { data, zero };
}

/** Marks in a bitmap what the uppermost layers of a chain hold. */
export async function heldInLayers(
  device: BlockDevice,
  layers: number,
  bits: Bitmap,
): Promise<void> {
  const range = { from: 1, to: layers, signal: undefined };
  for (let at = 0; at < device.size; ) {
    at = await addSome({ device, data: bits, zero: bits }, at, range);
  }
}

/** Adds what one question answers, and returns where that ends. */
async function addSome(
  { device, data, zero }: { device: BlockDevice; data: Bitmap; zero: Bitmap },
  at: number,
  { from, to, signal }: { from: number; to: number; signal: AbortSignal | undefined },
): Promise<number> {
  const contexts = [Context.allocation, Context.depth];
  const options = { contexts, ...(signal && { signal }) };
  const [status, depths] = await device.someExtents(at, device.size - at, options);
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
