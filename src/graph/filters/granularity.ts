import type { BlockDevice } from '../../block/index.js';
import { isPowerOfTwo } from '../../util/index.js';

const LEAST = 65_536;
const LARGEST = 2 * 1024 * 1024;

/** Copies are made in units that their target likes. */
export function granularityFor({ limits: { preferred } }: BlockDevice): number {
  if (!isPowerOfTwo(preferred)) return LEAST;
  return Math.min(LARGEST, Math.max(LEAST, preferred));
}
