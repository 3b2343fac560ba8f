export { A_PATH, A_SOURCE } from './argument-texts.js';
export {
  type BlockDevice,
  type ExtentsOptions,
  isBlockDevice,
  type RequestOptions,
} from './block-device.js';
export { Device, type DeviceOptions } from './device.js';
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
