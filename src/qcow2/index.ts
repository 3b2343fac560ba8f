export {
  type Area,
  blockCluster,
  type NewLayout,
  newLayout,
  planArea,
  planTableGrowth,
} from './allocation.js';
export * from './bitmap-directory.js';
export { BitmapCluster, encodeBitmapTable, parseBitmapTable } from './bitmap-table.js';
export {
  BITMAPS_EXTENSION_BYTES,
  findExtensions,
  putBitmapsBody,
  putBitmapsHead,
} from './bitmaps-extension.js';
export {
  allUnits,
  type Mapped,
  readMapped,
  UNMAPPED,
  unitsOf,
  writeMapped,
} from './cluster.js';
export { countReferenced } from './count-referenced.js';
export * from './entries.js';
export type {
  BitmapsExtension,
  Extensions,
} from './extensions.js';
export { corrupt, cutShort, isNoImage, unsupported } from './failures.js';
export {
  Autoclear,
  Compatible,
  Incompatible,
  KNOWN_FEATURES,
} from './features.js';
export { type Geometry, geometryOf, l1EntriesFor } from './geometry.js';
export { type Compression, type Header, hasDataFile, hasLazyRefcounts } from './header.js';
export {
  clusterSizeIn,
  encodeHeader,
  magicBytes,
  parseHeader,
  takeForFinished,
} from './header-codec.js';
export * from './limits.js';
export { findRun, type L2Table, type MappingRules, type Run, RunKind } from './mapping.js';
export {
  allocatedBytes,
  bitmapsBytes,
  type MeasuredBitmap,
  type MeasuredImage,
  wholeClusters,
} from './measure.js';
export { RefcountCodec } from './refcounts.js';
export { encodeSnapshots, parseSnapshots, type Snapshot } from './snapshots.js';
export { findZstdFrame } from './zstd-frame.js';
