export type { BackingName } from '../../../contract/index.js';
export type { Qcow2Description } from './description.js';
export { backingPathOf, dataFileOf, filesBelow } from './files-below.js';
export { findOneSnapshot, findSnapshot } from './find-snapshot.js';
export { GatheredWrites } from './gathered-writes.js';
export { HostFile, joinSpans, type Span } from './host-file.js';
export { LiveHeader } from './live-header.js';
export {
  describeBacking,
  identityOf,
  type Naming,
  pathOfNamed,
  realFolders,
  refused,
  resolveNamed,
} from './named-file.js';
export { readHeader, readSnapshots, readSnapshotTable } from './read-header.js';
export { readPadded } from './read-padded.js';
export { readerOf } from './reader-of.js';
export { tableCache } from './table-cache.js';
export { writeBackingName, writeHeader } from './write-backing-name.js';
