/** A bitmap table ("Bitmap table"): says of each cluster of bits where it lies, or that all of them are alike. */

import { viewOf, writeU64 } from '../util/index.js';
import type { BitmapEntry, BitmapOwner } from './bitmap-directory.js';
import { entryOffset } from './entries.js';
import { corrupt } from './failures.js';

/** What an entry may say instead of a place. No cluster of bits lies so low: the header is there. */
export const BitmapCluster = { allClean: 0, allDirty: 1 } as const;

/** Bits of the two halves of an entry that must be 0. */
const RESERVED_HIGH = 0xff00_0000;
const RESERVED_LOW = 0x1fe;

/**
 * Reads a table: for each entry where its cluster lies, or one of {@link BitmapCluster}.
 *
 * @throws LacunaError ERR_QCOW2_CORRUPT
 */
export function parseBitmapTable(
  bytes: Uint8Array,
  { name, tableOffset }: Pick<BitmapEntry, 'name' | 'tableOffset'>,
  { image, geometry }: Pick<BitmapOwner, 'image' | 'geometry'>,
): Float64Array {
  const view = viewOf(bytes);
  const clusters = new Float64Array(bytes.length / 8);
  for (let i = 0; i < clusters.length; i++) {
    const [high, low] = [view.getUint32(i * 8), view.getUint32(i * 8 + 4)];
    const offset = entryOffset(high, low);
    const alike = low & 1;
    const reserved = (high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0;
    const misplaced = offset % geometry.clusterSize !== 0 || !Number.isSafeInteger(offset);
    if (reserved || misplaced || (alike === 1 && offset !== 0)) {
      const entry = view.getBigUint64(i * 8).toString(16);
      const found = `entry ${i} of the table of bitmap "${name}" is 0x${entry}`;
      throw corrupt(image, found, tableOffset + i * 8);
    }
    clusters[i] = offset === 0 ? alike : offset;
  }
  return clusters;
}

export function encodeBitmapTable(clusters: Float64Array): Uint8Array {
  const bytes = new Uint8Array(clusters.length * 8);
  const view = viewOf(bytes);
  for (let i = 0; i < clusters.length; i++) writeU64(view, i * 8, clusters[i]);
  return bytes;
}
