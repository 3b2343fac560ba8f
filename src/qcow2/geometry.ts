import { Incompatible } from './features.js';
import type { Header } from './header.js';
import { SUBCLUSTERS } from './limits.js';

/** The sizes that follow from a header. All in bytes where not said otherwise. */
export interface Geometry {
  readonly clusterBits: number;
  readonly clusterSize: number;
  readonly extended: boolean;
  /** Bytes of an L2 entry: 8, or 16 with extended L2 entries. */
  readonly l2EntryBytes: number;
  /** Entries in an L2 table, which is always one cluster long. */
  readonly l2Entries: number;
  /** Bytes of the disk that one L2 table describes. */
  readonly l2Span: number;
  /** Bytes of a subcluster; of a cluster where there are none. */
  readonly subclusterSize: number;
  /** Width of a refcount. */
  readonly refcountBits: number;
  /** Clusters whose refcounts one refcount block holds. */
  readonly refcountBlockEntries: number;
}

type Shape = Pick<Header, 'clusterBits' | 'incompatible' | 'refcountOrder'>;

export function geometryOf({ clusterBits, incompatible, refcountOrder }: Shape): Geometry {
  const clusterSize = 2 ** clusterBits;
  const extended = (incompatible & Incompatible.extendedL2) !== 0n;
  const l2EntryBytes = extended ? 16 : 8;
  const l2Entries = clusterSize / l2EntryBytes;
  const refcountBits = 2 ** refcountOrder;
  return {
    clusterBits,
    clusterSize,
    extended,
    l2EntryBytes,
    l2Entries,
    l2Span: l2Entries * clusterSize,
    subclusterSize: extended ? clusterSize / SUBCLUSTERS : clusterSize,
    refcountBits,
    refcountBlockEntries: (clusterSize * 8) / refcountBits,
  };
}

/** Entries that an L1 table needs for a disk of `size` bytes. */
export function l1EntriesFor(size: number, geometry: Geometry): number {
  return Math.ceil(size / geometry.l2Span);
}
