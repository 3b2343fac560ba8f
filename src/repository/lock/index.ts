export type { Holder } from './holder.js';
export { type FoundLock, Lock, type LockFile, type LockKind, locksOf, unlock } from './lock.js';
