import { expect, test } from 'vitest';
import { exactText, joinHalves, readU64, viewOf, writeU64 } from '#dist/util/index.js';

const NUMBERS = [0, 1, 255, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1];

test.each([true, false])(
  'a number of 64 bits reads back as it was written, littleEndian %s',
  (littleEndian) => {
    const view = new DataView(new ArrayBuffer(16));
    for (const value of NUMBERS) {
      writeU64(view, 3, value, littleEndian);
      expect(readU64(view, 3, littleEndian)).toBe(value);
      expect(view.getBigUint64(3, littleEndian)).toBe(BigInt(value));
    }
  },
);

test('numbers of 64 bits are big-endian unless something else is said', () => {
  const view = new DataView(new ArrayBuffer(8));
  writeU64(view, 0, 0x1_0203_0405);
  expect([...new Uint8Array(view.buffer)]).toEqual([0, 0, 0, 1, 2, 3, 4, 5]);
  expect(readU64(view, 0)).toBe(0x1_0203_0405);
});

test('a number above 2^53 - 1 never reads as a smaller one', () => {
  const view = new DataView(new ArrayBuffer(8));
  for (const value of [2n ** 53n, 2n ** 53n + 1n, 2n ** 63n + 1n, 2n ** 64n - 1n]) {
    view.setBigUint64(0, value);
    expect(readU64(view, 0)).toBeGreaterThan(Number.MAX_SAFE_INTEGER);
  }
  expect(joinHalves(0xffff_ffff, 0xffff_ffff)).toBe(2 ** 64);
});

test('a view shows exactly the bytes that it was made of', () => {
  const bytes = Uint8Array.of(9, 1, 2, 9).subarray(1, 3);
  const view = viewOf(bytes);
  expect(view.byteLength).toBe(2);
  expect(view.getUint16(0)).toBe(0x0102);
});

test('exact text is given back byte for byte, a byte order mark included, or not at all', () => {
  expect(exactText(Buffer.from('\ufeffdisk'))).toBe('\ufeffdisk');
  expect(exactText(Uint8Array.of(0x61, 0xff))).toBeUndefined();
  expect(exactText(new Uint8Array(0))).toBe('');
});
