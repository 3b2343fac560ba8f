import { counted, SIZE_LIMIT } from '../util/index.js';
import { corrupt, unsupported } from './failures.js';
import { Incompatible, unknownFeatures } from './features.js';
import { geometryOf, l1EntriesFor } from './geometry.js';
import type { Header } from './header.js';
import {
  MAX_L1_BYTES,
  MAX_REFCOUNT_ORDER,
  MAX_REFCOUNT_TABLE_BYTES,
  MAX_SNAPSHOTS,
  MIN_EXTENDED_CLUSTER_BITS,
} from './limits.js';

interface Found {
  readonly image: string;
  /** "crypt_method". */
  readonly encryption: number;
}

/** Refuses a header that cannot be, or that asks for what is not known here. */
export function checkHeader(header: Header, { image, encryption }: Found): void {
  checkFeatures(header, image, encryption);
  checkTables(header, image);
}

function checkFeatures(header: Header, image: string, encryption: number): void {
  const { incompatible, extensions, compression, clusterBits } = header;
  const unknown = unknownFeatures(incompatible, extensions.featureNames);
  if (unknown.length > 0) {
    const needed = `needs features that are not known here, ${unknown.join(', ')}`;
    throw unsupported(image, needed, 'convert it with the program that made it');
  }
  if (encryption > 2) throw corrupt(image, `encryption by method ${encryption}`, 32);
  if (encryption !== 0) {
    const method = encryption === 1 ? 'AES' : 'LUKS';
    const advice = 'decrypt it with "qemu-img convert --object secret,..."';
    throw unsupported(image, `is encrypted (${method})`, advice);
  }
  const marked = (incompatible & Incompatible.compression) !== 0n;
  if (marked !== (compression !== 'deflate')) {
    throw corrupt(image, `compression by ${compression}, which its feature bit denies`, 104);
  }
  const extended = (incompatible & Incompatible.extendedL2) !== 0n;
  if (extended && clusterBits < MIN_EXTENDED_CLUSTER_BITS) {
    throw corrupt(image, `extended L2 entries with clusters of 2^${clusterBits} bytes`, 20);
  }
  if (header.refcountOrder > MAX_REFCOUNT_ORDER) {
    throw corrupt(image, `refcounts of 2^${header.refcountOrder} bits, where 64 are allowed`, 96);
  }
}

function checkTables(header: Header, image: string): void {
  const geometry = geometryOf(header);
  const { clusterSize } = geometry;
  if (!Number.isSafeInteger(header.size)) {
    const needed = `holds a disk of ${header.size} bytes`;
    throw unsupported(image, needed, `sizes end at ${SIZE_LIMIT}`);
  }
  const place = (what: string, offset: number, at: number) => {
    if (Number.isSafeInteger(offset) && offset % clusterSize === 0) return;
    throw corrupt(image, `${what} at ${offset}, which is no start of a cluster`, at);
  };
  place('the L1 table', header.l1Offset, 40);
  place('the refcount table', header.refcountTableOffset, 48);
  place('the snapshot table', header.snapshotsOffset, 64);
  const needed = l1EntriesFor(header.size, geometry);
  if (header.l1Size * 8 > MAX_L1_BYTES || header.l1Size < needed) {
    const found = `an L1 table of ${counted(header.l1Size, 'entry', 'entries')}, where the disk needs ${needed}`;
    throw corrupt(image, `${found} and ${MAX_L1_BYTES / 8} are allowed`, 36);
  }
  if (header.l1Size > 0 && header.l1Offset === 0) {
    throw corrupt(image, 'the L1 table at 0, where the header is', 40);
  }
  const { refcountTableClusters } = header;
  if (refcountTableClusters * clusterSize > MAX_REFCOUNT_TABLE_BYTES) {
    throw corrupt(image, `a refcount table of ${refcountTableClusters} clusters`, 56);
  }
  if (header.snapshotCount > MAX_SNAPSHOTS) {
    throw corrupt(image, `${header.snapshotCount} snapshots, where 65536 are allowed`, 60);
  }
}
