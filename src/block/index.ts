export {
  type BlockDevice,
  type Capabilities,
  type ChildRole,
  type CommonDescription,
  type CopyRange,
  type Descriptions,
  Device,
  type DeviceDescription,
  type DeviceOptions,
  type Driver,
  type ExtentsOptions,
  type ImageDetails,
  isBlockDevice,
  type Limits,
  type Location,
  plainFile,
  type Range,
  type RequestOptions,
  type SnapshotDetails,
  type WriteOptions,
  type ZeroOptions,
} from './contract/index.js';
export {
  changeOwn,
  changeUnfiltered,
  checkDescription,
  fileOf,
  filesOf,
  type ImageDescription,
  type ImageFormat,
  imageOf,
  isMadeOfFiles,
  isRemote,
  isSameDevice,
  isServedHere,
  type ParseOptions,
  parseDescription,
  partsOf,
  placeOf,
  sharing,
  sideFilesOf,
  sizedFor,
  takesKey,
  unfiltered,
} from './describe/index.js';
export {
  createRawFile,
  type FileDescription,
  guardImage,
  InheritedFile,
  lastingNameOf,
  type RawFileOptions,
  type RawPreallocation,
  resizeRawFile,
} from './drivers/file/index.js';
export { type MemoryDescription, MemoryDriver } from './drivers/memory/index.js';
export type { NbdDescription } from './drivers/nbd/index.js';
export { type NullDescription, NullDriver } from './drivers/null/index.js';
export {
  checkBacking,
  createQcow2,
  layOutQcow2,
  type MappedClusters,
  type Preallocation,
  type Qcow2Options,
} from './drivers/qcow2/create/index.js';
export type { Qcow2Description } from './drivers/qcow2/index.js';
export { type BackingName, dataFileOf, filesBelow } from './drivers/qcow2/io/index.js';
export {
  type DelayDescription,
  type ErrorDescription,
  type FilterDescription,
  type LogDescription,
  type LoggedRequest,
  type Operation,
  type ThrottleDescription,
  withLog,
} from './filters/index.js';
export {
  BitmapImage,
  type BitmapImageOptions,
  type ExportBitmapOptions,
  exportBitmap,
  openBitmaps,
  openUnrecorded,
  resizeQcow2,
  setBackingName,
} from './images/index.js';
export {
  isShareable,
  type OpenOptions,
  openDevice,
  openShared,
  type SharedDevice,
  shareDevice,
  warnOfSignature,
} from './open/index.js';
