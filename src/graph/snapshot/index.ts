export {
  type CreateImageOptions,
  type CreateImageReport,
  create,
} from './create.js';
export { checkSnapshotDisk, openOverlay, type SnapshotDisk } from './overlay.js';
export { type SnapshotOptions, snapshot } from './snapshot.js';
