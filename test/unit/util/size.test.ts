import { describe, expect, it } from 'vitest';
import { parseSize } from '#dist/util/index.js';

describe('parseSize', () => {
  it.each([
    ['0', 0],
    ['512', 512],
    ['1b', 1],
    ['64K', 65_536],
    ['64k', 65_536],
    ['1.5M', 1_572_864],
    ['10G', 10 * 1024 ** 3],
    ['1T', 1024 ** 4],
    ['7P', 7 * 1024 ** 5],
    [' 4K ', 4096],
    [`${Number.MAX_SAFE_INTEGER}`, Number.MAX_SAFE_INTEGER],
  ])('reads %j as %d bytes', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it.each(['', 'K', '-1', '1KiB', '0x10', '1e3', '1,5G', '.5G', 'ten', '1 K'])(
    'refuses %j, which is no size',
    (text) => {
      expect(() => parseSize(text)).toThrow(TypeError);
    },
  );

  it.each(['8P', '1E', '9007199254740992', '99999999999999999999'])(
    'refuses %j, which is too large to be exact',
    (text) => {
      expect(() => parseSize(text)).toThrow(RangeError);
    },
  );

  it('refuses a part of a byte', () => {
    expect(() => parseSize('1.3')).toThrow(RangeError);
    expect(() => parseSize('0.0001K')).toThrow(/whole number of bytes/);
  });
});
