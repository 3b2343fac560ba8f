export {
  type BitmapContractOptions,
  type BitmapUnderTest,
  bitmapContract,
} from './bitmap-contract.js';
export type { ContractCase } from './shared/contract-case.js';
export type { DeviceContractOptions, Subject } from './device/subject.js';
export { deviceContract } from './device-contract.js';
export { Random } from './shared/random.js';
