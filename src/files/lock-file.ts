import { errnoName, fileCalls } from './system-calls.js';

/**
 * Takes the lock that an open file has, for as long as `fd` is open: a process that ends, by whatever death, has
 * given it back. Returns false while somebody else has it. Where the system has no such locks nobody is held back.
 */
export function lockFile(fd: number): boolean {
  const calls = fileCalls();
  if (calls === undefined) return true;
  const result = calls.lock(fd);
  return result >= 0 || errnoName(result) !== 'EAGAIN';
}
