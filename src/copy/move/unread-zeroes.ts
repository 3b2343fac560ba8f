import type { Bitmap } from '../../bitmap/index.js';
import { type BlockDevice, Device, type Driver } from '../../block/index.js';

/**
 * A source that is not asked for what is known to read as zero: its beginning and its end, or all of it. Whatever is
 * between two pieces of data is read with them, in one request.
 */
export function withoutReading(source: BlockDevice, zero: Bitmap): BlockDevice {
  const { name, size, limits, capabilities } = source;
  const driver: Driver = {
    name,
    size,
    limits,
    capabilities: { ...capabilities, write: false, contexts: [] },
    read: async (offset, target, signal) => {
      const end = offset + target.length;
      const from = zero.nextZero(offset, end);
      const to = from < 0 ? from : endOfData(zero, from, end);
      if (from !== offset || to !== end) target.fill(0);
      if (from < 0) return;
      await source.read(from, target.subarray(from - offset, to - offset), { signal });
    },
    close: async () => {},
  };
  return new Device(driver);
}

/** Where the zeroes begin that reach up to `end`; `end` where there are none. */
function endOfData(zero: Bitmap, from: number, end: number): number {
  let to = end;
  for (const { offset, length } of zero.ranges(from, end)) {
    to = offset + length === end ? offset : end;
  }
  return to;
}
