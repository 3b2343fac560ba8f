export {
  type BitmapContractOptions,
  type BitmapUnderTest,
  bitmapContract,
} from './bitmap-contract.js';
export type { DeviceContractOptions, Subject } from './device/index.js';
export { deviceContract } from './device-contract.js';
export { type ContractCase, Random } from './shared/index.js';
