export type { ContractCase } from './contract-case.js';
export { Random } from './random.js';
