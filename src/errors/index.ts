// Programs need the types of Node with ours, and compilers look for them only where they are told to.
/// <reference types="node" preserve="true" />

export type { ErrorCode } from './codes.js';
export {
  abortedError,
  type ErrorContext,
  isAborted,
  LacunaError,
  throwIfAborted,
} from './lacuna-error.js';
export { fromWire, toWire, type WireError } from './wire.js';
