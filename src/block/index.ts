export { lastingNameOf } from './drivers/file/block-device.js';
export type {
  CommonDescription,
  DeviceDescription,
  FileDescription,
  MemoryDescription,
  NbdDescription,
  NullDescription,
  Qcow2Description,
} from './describe/description.js';
export { checkDescription } from './describe/description-check.js';
export { Device, type DeviceOptions, type ExtentsOptions, type RequestOptions } from './contract/device.js';
export { again, type DeviceAgain, isShareable, openAgain } from './open/device-again.js';
export type {
  Capabilities,
  CopyRange,
  Driver,
  ImageDetails,
  Limits,
  Location,
  Range,
  SnapshotDetails,
  WriteOptions,
  ZeroOptions,
} from './contract/driver.js';

export { guardImage } from './drivers/file/image-locks.js';
export { warnOfSignature } from './open/image-signature.js';

export { InheritedFile } from './drivers/file/inherited-file.js';

export { MemoryDriver } from './drivers/memory/memory.js';
export { NullDriver } from './drivers/null/null.js';
export {
  type OpenOptions,
  openDevice,
  openUnrecorded,
  resizeQcow2,
  setBackingName,
} from './open/open.js';
export { type ImageFormat, type ParseOptions, parseDescription } from './describe/parse-description.js';
export type { RawPreallocation } from './drivers/file/preallocate.js';
export type { BackingName } from './drivers/qcow2/io/backing-name.js';
export { BitmapImage, type BitmapImageOptions, openBitmaps } from './images/bitmap-image.js';
export { createQcow2, layOutQcow2, type MappedClusters } from './drivers/qcow2/create/create.js';
export type { Preallocation, Qcow2Options } from './drivers/qcow2/create/create-options.js';
export { checkBacking } from './drivers/qcow2/create/create-options.js';
export { type ExportBitmapOptions, exportBitmap } from './images/export-bitmap.js';
export { dataFileOf, filesBelow } from './drivers/qcow2/io/files-below.js';
export { createRawFile, type RawFileOptions, resizeRawFile } from './drivers/file/raw-file.js';
