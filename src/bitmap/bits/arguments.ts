/** Misuse is told here, with the value that was wrong, before a kernel sees it. */

/** Throws unless `value` is a whole number from 0 to 2^53 - 1. */
export function checkBytes(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) throw badBytes(name, value);
}

/** Throws unless both are whole numbers from 0 to 2^53 - 1. */
export function checkRange(offset: number, length: number): void {
  if (!Number.isSafeInteger(offset) || offset < 0) throw badBytes('offset', offset);
  if (!Number.isSafeInteger(length) || length < 0) throw badBytes('length', length);
}

/** Throws unless every element is a whole number from 0 to 2^53 - 1. */
export function checkAll(name: string, values: ArrayLike<number>): void {
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (!Number.isSafeInteger(value) || value < 0) throw badBytes(`${name}[${i}]`, value);
  }
}

/** Log2 of a granularity; throws unless it is a power of two from 512 bytes to 2 GiB. */
export function granularityShift(granularity: number): number {
  if (typeof granularity !== 'number') throw badBytes('granularity', granularity);
  const shift = Math.log2(granularity);
  if (!Number.isInteger(shift) || shift < 9 || shift > 31) {
    throw new RangeError(
      `granularity must be a power of two from 512 to 2147483648, not ${granularity}`,
    );
  }
  return shift;
}

/** Throws unless `out` has room for a pair of numbers. */
export function checkPairs(out: Float64Array): void {
  if (!(out instanceof Float64Array)) throw new TypeError(`out must be a Float64Array, not ${out}`);
  if (out.length < 2) {
    throw new RangeError(`out must have room for a pair of numbers, not for ${out.length}`);
  }
}

function badBytes(name: string, value: unknown): Error {
  if (typeof value !== 'number') {
    const shown = typeof value === 'string' ? JSON.stringify(value) : String(value);
    return new TypeError(`${name} must be a number of bytes, not ${shown} (${typeof value})`);
  }
  return new RangeError(`${name} must be a whole number from 0 to 2^53 - 1, not ${value}`);
}
