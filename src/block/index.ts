export {
  type BlockDevice,
  type Capabilities,
  type CopyRange,
  Device,
  type DeviceOptions,
  type Driver,
  type ExtentsOptions,
  type ImageDetails,
  isBlockDevice,
  type Limits,
  type Location,
  type Range,
  type RequestOptions,
  type SnapshotDetails,
  type WriteOptions,
  type ZeroOptions,
} from './contract/index.js';
export {
  type CommonDescription,
  checkDescription,
  type DeviceDescription,
  type FileDescription,
  type ImageFormat,
  type MemoryDescription,
  type NbdDescription,
  type NullDescription,
  type ParseOptions,
  parseDescription,
  type Qcow2Description,
} from './describe/index.js';
export {
  createRawFile,
  guardImage,
  InheritedFile,
  lastingNameOf,
  type RawFileOptions,
  type RawPreallocation,
  resizeRawFile,
} from './drivers/file/index.js';
export { MemoryDriver } from './drivers/memory/index.js';
export { NullDriver } from './drivers/null/index.js';
export {
  checkBacking,
  createQcow2,
  layOutQcow2,
  type MappedClusters,
  type Preallocation,
  type Qcow2Options,
} from './drivers/qcow2/create/index.js';
export { type BackingName, dataFileOf, filesBelow } from './drivers/qcow2/io/index.js';
export {
  BitmapImage,
  type BitmapImageOptions,
  type ExportBitmapOptions,
  exportBitmap,
  openBitmaps,
} from './images/index.js';
export {
  again,
  type DeviceAgain,
  isShareable,
  type OpenOptions,
  openAgain,
  openDevice,
  openUnrecorded,
  resizeQcow2,
  setBackingName,
  warnOfSignature,
} from './open/index.js';
