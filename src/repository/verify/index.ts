export type {
  Problem,
  VerifiedPoint,
  VerifyOptions,
  VerifyReport,
} from './options.js';
export { type VerifiedTimes, verifiedTimes, verify } from './verify.js';
