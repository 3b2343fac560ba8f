export type { ErrorCode } from './codes.js';
export {
  abortedError,
  type ErrorContext,
  isAborted,
  LacunaError,
  throwIfAborted,
} from './lacuna-error.js';
export { fromWire, toWire, type WireError } from './wire.js';
