export { Device, type DeviceDescription, openDevice } from './block/index.js';
export * from './copy/index.js';
