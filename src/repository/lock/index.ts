export type { Holder } from './holder.js';
export { endHold, hold, holdsOf } from './holds.js';
export { type FoundLock, Lock, type LockFile, type LockKind, locksOf, unlock } from './lock.js';
