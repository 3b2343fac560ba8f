export {
  type BitmapContractOptions,
  type BitmapUnderTest,
  bitmapContract,
} from './bitmap-contract.js';
export type { ContractCase } from './contract-case.js';
export type { DeviceContractOptions, Subject } from './device/subject.js';
export { deviceContract } from './device-contract.js';
export { Random } from './random.js';
