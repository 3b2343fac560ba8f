export { listedFiles, listedPoints, listPoints } from './listed.js';
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
export {
  faultOf,
  isDamage,
  type Manifests,
  newer,
  numbersIn,
  readManifest,
  readManifests,
} from './read.js';
export { readNewestChain } from './read-chain.js';
export { schemaText } from './schema.js';
export { commitManifest, replaceManifest } from './write.js';
