export { lastingNameOf } from './block-device.js';
export type {
  CommonDescription,
  DeviceDescription,
  FileDescription,
  MemoryDescription,
  NbdDescription,
  NullDescription,
  Qcow2Description,
} from './description.js';
export { checkDescription } from './description-check.js';
export { Device, type DeviceOptions, type ExtentsOptions, type RequestOptions } from './device.js';
export { again, type DeviceAgain, isShareable, openAgain } from './device-again.js';
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
} from './driver.js';

export { guardImage } from './image-locks.js';
export { warnOfSignature } from './image-signature.js';

export { InheritedFile } from './inherited-file.js';

export { MemoryDriver } from './memory.js';
export { NullDriver } from './null.js';
export {
  type OpenOptions,
  openDevice,
  openUnrecorded,
  resizeQcow2,
  setBackingName,
} from './open.js';
export { type ImageFormat, type ParseOptions, parseDescription } from './parse-description.js';
export type { RawPreallocation } from './preallocate.js';
export type { BackingName } from './qcow2/backing-name.js';
export { BitmapImage, type BitmapImageOptions, openBitmaps } from './qcow2/bitmap-image.js';
export { createQcow2, layOutQcow2, type MappedClusters } from './qcow2/create.js';
export type { Preallocation, Qcow2Options } from './qcow2/create-options.js';
export { checkBacking } from './qcow2/create-options.js';
export { type ExportBitmapOptions, exportBitmap } from './qcow2/export-bitmap.js';
export { dataFileOf, filesBelow } from './qcow2/files-below.js';
export { createRawFile, type RawFileOptions, resizeRawFile } from './raw-file.js';
