import { expect, it } from 'vitest';
import { alignDown, alignUp, isPowerOfTwo } from '#dist/util/index.js';

const PETABYTE = 1024 ** 5;

it.each([
  [0, 512, 0, 0],
  [1, 512, 0, 512],
  [512, 512, 512, 512],
  [513, 512, 512, 1024],
  [7, 1, 7, 7],
  [PETABYTE + 1, 4096, PETABYTE, PETABYTE + 4096],
  [2 ** 32 + 5, 2 ** 31, 2 ** 32, 2 ** 32 + 2 ** 31],
])('%d is aligned to %d, down and up', (value, unit, down, up) => {
  expect(alignDown(value, unit)).toBe(down);
  expect(alignUp(value, unit)).toBe(up);
});

it('powers of two are known, also those that bit operations cannot hold', () => {
  for (let power = 0; power < 53; power++) {
    expect(isPowerOfTwo(2 ** power), `2^${power}`).toBe(true);
    if (power > 1) expect(isPowerOfTwo(2 ** power - 1), `2^${power} - 1`).toBe(false);
    if (power > 0) expect(isPowerOfTwo(2 ** power + 1), `2^${power} + 1`).toBe(false);
  }
  for (const value of [0, -1, -2, 0.5, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
    expect(isPowerOfTwo(value), `${value}`).toBe(false);
  }
});
