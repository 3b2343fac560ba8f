/** The largest multiple of `unit` that is not above `value`. */
export function alignDown(value: number, unit: number): number {
  return value - (value % unit);
}

/** The smallest multiple of `unit` that is not below `value`. */
export function alignUp(value: number, unit: number): number {
  const rest = value % unit;
  return rest === 0 ? value : value + (unit - rest);
}

/** Whether a number is 1, 2, 4, ... up to the largest power of two that is exact. */
export function isPowerOfTwo(value: number): boolean {
  // The logarithm of 2^49 - 1 and its like is rounded to a whole number.
  return Number.isSafeInteger(value) && value > 0 && value === 2 ** Math.round(Math.log2(value));
}
