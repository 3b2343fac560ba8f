/**
 * The mapping of one guest cluster, whatever kind of L2 entry it has: with extended entries a cluster has 32 units
 * (subclusters), without them it has one, itself. Bit x of a word of units stands for unit x.
 */
import { viewOf } from '../util/index.js';
import {
  type CompressedEntry,
  compressedEntry,
  entryOffset,
  isCompressed,
  isCopied,
  isZeroFlagged,
  readSubclusters,
  writeCompressedEntry,
  writeL2Entry,
  writeSubclusters,
} from './entries.js';
import { corrupt } from './failures.js';
import type { Geometry } from './geometry.js';
import type { MappingRules } from './mapping.js';

export interface Mapped {
  /** Where the cluster lies in the file of data; undefined where it lies nowhere, or is compressed. */
  readonly host?: number;
  /** Its refcount is exactly one: it may be written in place. */
  readonly copied: boolean;
  /** Units whose bytes are in the host cluster. */
  readonly allocated: number;
  /** Units that read as zero whatever lies below. */
  readonly zero: number;
  readonly compressed?: CompressedEntry;
}

/** A cluster that shows what lies below. */
export const UNMAPPED: Mapped = { copied: false, allocated: 0, zero: 0 };

/** The units of a whole cluster. */
export function allUnits({ extended }: Geometry): number {
  return extended ? 0xffff_ffff : 1;
}

/** The units that a range inside a cluster touches. */
export function unitsOf(geometry: Geometry, from: number, to: number): number {
  if (!geometry.extended) return 1;
  const first = Math.floor(from / geometry.subclusterSize);
  const count = Math.ceil(to / geometry.subclusterSize) - first;
  return count === 32 ? 0xffff_ffff : (((1 << count) - 1) << first) >>> 0;
}

/**
 * Reads the mapping at a byte of an L2 table.
 *
 * @param tableOffset where the table lies, for the message.
 * @throws LacunaError ERR_QCOW2_CORRUPT where it is none that can be.
 */
export function readMapped(
  table: Uint8Array,
  at: number,
  { geometry, dataFile, image }: MappingRules,
  tableOffset: number,
): Mapped {
  const view = viewOf(table);
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  if (isCompressed(high)) {
    const compressed = compressedEntry(high, low, geometry);
    return { copied: false, allocated: 0, zero: 0, compressed };
  }
  const offset = entryOffset(high, low);
  const copied = isCopied(high);
  const host = offset !== 0 || (dataFile && copied) ? offset : undefined;
  if (offset % geometry.clusterSize !== 0 || !Number.isSafeInteger(offset)) {
    throw corrupt(image, `a cluster at ${offset}, which is no start of one`, tableOffset + at);
  }
  if (!geometry.extended) {
    const zero = isZeroFlagged(low) ? 1 : 0;
    return { host, copied, zero, allocated: host === undefined || zero === 1 ? 0 : 1 };
  }
  const { zero, allocated } = readSubclusters(view, at);
  if ((zero & allocated) !== 0 || (allocated !== 0 && host === undefined)) {
    throw corrupt(image, 'subclusters that are in two states at once', tableOffset + at);
  }
  return { host, copied, zero, allocated };
}

/** Writes a mapping at a byte of an L2 table. */
export function writeMapped(
  table: Uint8Array,
  at: number,
  mapped: Mapped,
  geometry: Geometry,
): void {
  const { extended } = geometry;
  const view = viewOf(table);
  const { host, copied, allocated, zero, compressed } = mapped;
  if (compressed !== undefined) {
    writeCompressedEntry(view, at, compressed, geometry);
    if (extended) writeSubclusters(view, at, { zero: 0, allocated: 0 });
    return;
  }
  const entry = { offset: host ?? 0, copied: host !== undefined && copied };
  writeL2Entry(view, at, { ...entry, zero: !extended && zero !== 0 });
  if (extended) writeSubclusters(view, at, { zero, allocated });
}
