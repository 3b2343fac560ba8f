export { byteTests } from './bytes.js';
export { misuseTests } from './misuse.js';
export { modelTests } from './model.js';
export { statusTests } from './status.js';
export {
  checkDeviceContract,
  type DeviceContractOptions,
  type DeviceTest,
  type Subject,
} from './subject.js';
