export {
  type Capabilities,
  createRawFile,
  Device,
  type DeviceDescription,
  type Driver,
  type Limits,
  openDevice,
} from './block/index.js';
export * from './copy/index.js';
