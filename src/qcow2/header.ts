import type { Extensions } from './extensions.js';
import { Compatible, Incompatible } from './features.js';

/** How compressed clusters are compressed. */
export type Compression = 'deflate' | 'zstd';

export interface Header {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  /** Bytes of the disk. */
  readonly size: number;
  /** Entries of the active L1 table, and where it starts. */
  readonly l1Size: number;
  readonly l1Offset: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
  readonly snapshotCount: number;
  readonly snapshotsOffset: number;
  /** Bits of {@link Incompatible}, `Compatible` and `Autoclear`; all 0 in version 2. */
  readonly incompatible: bigint;
  readonly compatible: bigint;
  readonly autoclear: bigint;
  /** The width of a refcount is 2^order bits. */
  readonly refcountOrder: number;
  readonly compression: Compression;
  /** Fields behind `compression_type` that are not known: kept when the header is written. */
  readonly additional: Uint8Array;
  readonly extensions: Extensions;
  /** The name of the backing file as it stands in the image. */
  readonly backingFile?: string;
}

/** Whether writers may postpone refcounts. */
export function hasLazyRefcounts({ compatible }: Header): boolean {
  return (compatible & Compatible.lazyRefcounts) !== 0n;
}

/** Whether guest clusters lie in an external data file. */
export function hasDataFile({ incompatible }: Header): boolean {
  return (incompatible & Incompatible.dataFile) !== 0n;
}
