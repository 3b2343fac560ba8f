export { checkUnread, diskCalled } from './disks.js';
export { type PlannedExtent, type ReadExtentsOptions, readExtents } from './read-extents.js';
export { type ViewCopyOptions, ViewReader, type ViewReadOptions } from './view-reader.js';
