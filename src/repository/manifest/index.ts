export { listedPoints, listPoints } from './listed.js';
export {
  type BackupMode,
  bitmapName,
  bitmapPrefix,
  type DiskManifest,
  type GoneImage,
  type ImageFile,
  type ImageState,
  type LeavesState,
  type Manifest,
} from './manifest.js';
export { faultOf, isDamage, type Manifests, newer, readManifest, readManifests } from './read.js';
export { schemaText } from './schema.js';
export { commitManifest, replaceManifest } from './write.js';
