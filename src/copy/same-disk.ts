import { isDeepStrictEqual } from 'node:util';
import type { Device, DeviceDescription } from '../block/index.js';

/** Zeroing the whole target at once must not wipe the source: a disk may be copied onto itself. */
export function isSameDisk(source: Device, target: Device): boolean {
  if (source === target) return true;
  const [a, b] = [source.description, target.description];
  return a !== undefined && b !== undefined && isDeepStrictEqual(placeOf(a), placeOf(b));
}

/** Where a device is, without how it is opened there. */
function placeOf(description: DeviceDescription): object {
  return {
    ...description,
    'read-only': undefined,
    contexts: undefined,
    'reconnect-delay': undefined,
    'open-timeout': undefined,
  };
}
