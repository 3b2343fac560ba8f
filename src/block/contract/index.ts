export type { Range } from '../../extent/index.js';
export { A_PATH, A_SOURCE } from './argument-texts.js';
export {
  type BlockDevice,
  type ExtentsOptions,
  isBlockDevice,
  type RequestOptions,
} from './block-device.js';
export {
  type CommonDescription,
  type Descriptions,
  type DeviceDescription,
  plainFile,
} from './description.js';
export { Device, type DeviceOptions } from './device.js';
export type {
  BackingName,
  Capabilities,
  ChangeableLock,
  CopyMode,
  CopyRange,
  DiskCopy,
  Driver,
  ImageDetails,
  KeptBitmaps,
  Limits,
  Location,
  LockAccess,
  PullSource,
  ReadableRange,
  SnapshotDetails,
  SnapshotSource,
  TakenBytes,
  WriteOptions,
  ZeroedRange,
  ZeroOptions,
} from './driver.js';
export type { Child, ChildRole, DriverKind, Opening } from './driver-kind.js';
export {
  byType,
  description,
  flag,
  fraction,
  type Key,
  type Keys,
  milliseconds,
  oneOf,
  ordinal,
  port,
  positive,
  seconds,
  size,
  someOf,
  text,
  texts,
  timeout,
  variant,
} from './keys.js';
export { RangeLock } from './range-lock.js';
export type { DeviceOperation, DeviceRequestMessage } from './request-channel.js';
