export { A_PATH, A_SOURCE } from './argument-texts.js';
export { Device, type DeviceOptions, type ExtentsOptions, type RequestOptions } from './device.js';
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
export { RangeLock } from './range-lock.js';
