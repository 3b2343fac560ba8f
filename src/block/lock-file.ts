import { errnoName, systemCalls } from './ffi.js';

/**
 * Takes the lock that an open file has, for as long as `fd` is open: a process that ends, by whatever death, has
 * given it back. Returns false while somebody else has it. Where the system has no such locks nobody is held back.
 */
export async function lockFile(fd: number): Promise<boolean> {
  const calls = await systemCalls();
  if (calls === undefined) return true;
  const result = calls.lock(fd);
  return result >= 0 || errnoName(result) !== 'EAGAIN';
}
