export type {
  DeviceDescription,
  FileDescription,
  MemoryDescription,
  NbdDescription,
  NullDescription,
  Qcow2Description,
} from './description.js';
export { checkDescription } from './description-check.js';
export { Device, type DeviceOptions, type ExtentsOptions, type RequestOptions } from './device.js';
export type {
  Capabilities,
  CopyRange,
  Driver,
  ImageDetails,
  Limits,
  WriteOptions,
  ZeroOptions,
} from './driver.js';
export { lockFile } from './lock-file.js';
export { MemoryDriver } from './memory.js';
export { NullDriver } from './null.js';
export { type OpenOptions, openDevice, resizeQcow2 } from './open.js';
export { type ImageFormat, type ParseOptions, parseDescription } from './parse-description.js';
export type { RawPreallocation } from './preallocate.js';
export { createQcow2, layOutQcow2, type MappedClusters } from './qcow2/create.js';
export type { Preallocation, Qcow2Options } from './qcow2/create-options.js';
export { createRawFile, type RawFileOptions, resizeRawFile, syncFolder } from './raw-file.js';
export type { NbdServerAddress, NbdServerTls, ServedDevice, ServeOptions } from './serve.js';
