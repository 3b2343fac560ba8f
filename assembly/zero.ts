/** Zero tests of memory, and the one place that chooses between the twins. */
import * as scalar from "./zero-scalar";
import * as simd from "./zero-simd";

/** Whether `length` bytes at `address` are all zero. */
export function isZero(address: usize, length: u32): u32 {
  if (ASC_FEATURE_SIMD) return u32(simd.isZeroRange(address, length));
  return u32(scalar.isZeroRange(address, length));
}

/**
 * The length of the run that begins at `address`: of steps of `step` bytes (the last one may be
 * shorter) that are all zero, as a positive number, or that are not, as a negative one. 0 when
 * `length` is 0. A step with data costs as much as it takes to find its first byte that is not
 * zero.
 */
export function zeroRun(address: usize, length: u32, step: u32): f64 {
  if (length == 0) return 0;
  const zero = isZero(address, min(step, length));
  let done = min(step, length);
  while (done < length) {
    const next = min(step, length - done);
    if (isZero(address + done, next) != zero) break;
    done += next;
  }
  return zero != 0 ? <f64>done : -<f64>done;
}
