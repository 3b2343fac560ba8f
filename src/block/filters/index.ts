export { type DelayDescription, delay } from './delay.js';
export { type ErrorDescription, error } from './error.js';
export { GrowingFile } from './growing-file.js';
export { type LogDescription, type LoggedRequest, log, withLog } from './log.js';
export { type FilterDescription, type Operation, passThrough } from './pass-through.js';
export { type ThrottleDescription, throttle } from './throttle.js';
export {
  THROTTLED,
  type Throttled,
  ThrottleGroup,
  type ThrottleLimit,
  type ThrottleLimits,
} from './throttle-group.js';
