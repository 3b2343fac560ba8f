/** @throws RangeError where nobody can wait for so long: a number of milliseconds, or Infinity, is at least 0. */
export function checkTimeLimit(name: string, milliseconds: number): number {
  if (milliseconds >= 0) return milliseconds;
  throw new RangeError(`${name} must be at least 0 milliseconds, not ${milliseconds}`);
}
