export type { ChainOpening } from './chain.js';
export type { Qcow2Driver } from './qcow2.js';
