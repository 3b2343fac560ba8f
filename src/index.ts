export {
  BitmapImage,
  type BitmapImageOptions,
  type Capabilities,
  createQcow2,
  createRawFile,
  Device,
  type DeviceDescription,
  type Driver,
  type ExportBitmapOptions,
  exportBitmap,
  type Limits,
  openBitmaps,
  openDevice,
  type Preallocation,
  type Qcow2Options,
  resizeQcow2,
} from './block/index.js';
export * from './copy/index.js';
