export {
  type CreateImageOptions,
  type CreateImageReport,
  create,
} from './create.js';
export type { SnapshotDisk } from './overlay.js';
export { type SnapshotOptions, snapshot } from './snapshot.js';
