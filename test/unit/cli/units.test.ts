import { describe, expect, test } from 'vitest';
import { parseBytes, parseCount } from '#dist/cli/device/arguments.js';
import { formatBytes, formatDuration, formatRate, formatShare } from '#dist/cli/text/units.js';

describe('sizes that people type', () => {
  test.each([
    ['0', 0],
    ['65536', 65536],
    ['64K', 65536],
    ['64k', 65536],
    ['1.5G', 1.5 * 2 ** 30],
    ['4P', 2 ** 52],
  ])('%s is %d bytes', (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes);
  });

  // `KB` is refused because its users mean different things by it.
  test.each(['', 'K', '-1', '64KB', '1e3', '0x10', '0.3', '8P', '1 000', '64KiB'])(
    'refuses %j',
    (text) => {
      expect(() => parseBytes(text)).toThrow(/is not a|too large/);
    },
  );
});

describe('counts that people type', () => {
  test('are whole numbers from the least allowed', () => {
    expect(parseCount(0)('0')).toBe(0);
    expect(parseCount(1)('16')).toBe(16);
    expect(parseCount(1, 16)('16')).toBe(16);
    expect(() => parseCount(1, 16)('17')).toThrow('Give a whole number from 1 to 16.');
  });

  test.each(['0', '-1', '1.5', 'many', '', '99999999999999999999'])(
    'refuses %j below 1',
    (text) => {
      expect(() => parseCount(1)(text)).toThrow(/1 or more/);
    },
  );
});

describe('amounts for people', () => {
  test('sizes are binary', () => {
    expect(formatBytes(0)).toBe('0 B');
    expect(formatBytes(2 ** 40)).toBe('1 TiB');
  });

  test('something is never 0 %, and less than all never 100 %', () => {
    expect(formatShare(1, 2 ** 40)).toBe('< 0.01 %');
    expect(formatShare(2 ** 40 - 1, 2 ** 40)).toBe('> 99.99 %');
    expect(formatShare(0, 2 ** 40)).toBe('0 %');
    expect(formatShare(7, 7)).toBe('100 %');
    expect(formatShare(1, 3)).toBe('33.33 %');
    expect(formatShare(0, 0)).toBe('0 %');
  });

  test('durations choose their unit', () => {
    expect([350, 4200, 59_960, 200_000, 7_500_000].map(formatDuration)).toEqual([
      '350 ms',
      '4.2 s',
      '1 min 0 s',
      '3 min 20 s',
      '2 h 5 min',
    ]);
  });

  test('no rate is shown where no time has passed', () => {
    expect(formatRate(2 ** 20, 1000)).toBe('1 MiB/s');
    expect(formatRate(2 ** 20, 0)).toBe('-');
  });
});
