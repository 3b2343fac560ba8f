import { describe, expect, test } from 'vitest';
import { type Moment, progressLine } from '#dist/cli/text/progress.js';

const GIB = 2 ** 30;

function moment(doneBytes: number): Moment {
  const rate = { bytesPerSecond: GIB, remainingMs: 3000 };
  return { phase: 'Copying', totalBytes: 4 * GIB, doneBytes, ...rate, elapsedMs: 1000 };
}

describe('progress line', () => {
  const style = { width: 100, unicode: false };

  test('shows bar, share, amount, rate and time left', () => {
    const line = progressLine(moment(GIB), style);
    expect(line).toMatch(/^Copying \[#+-+\] {2}25 % {2}1 GiB of 4 GiB {2}1 GiB\/s {2}3\.0 s left$/);
    expect(line.match(/#/g)!.length * 3).toBe(line.match(/-/g)!.length);
  });

  test('names only the phase while the total is unknown', () => {
    expect(progressLine({ ...moment(0), totalBytes: 0 }, style)).toBe('Copying');
  });

  test('tells how far a stream is, whose total nobody knows', () => {
    const line = progressLine({ ...moment(GIB), totalBytes: 0 }, style);
    expect(line).toBe('Copying: 1 GiB');
  });

  test('tells no rate and no time where nothing can be said of them', () => {
    const { remainingMs: _, ...held } = moment(GIB);
    const line = progressLine({ ...held, bytesPerSecond: 0 }, style);
    expect(line).toMatch(/25 % {2}1 GiB of 4 GiB$/);
  });

  test('is never wider than the terminal', () => {
    for (let width = 1; width < 120; width++) {
      const line = progressLine(moment(GIB), { width, unicode: true });
      expect(line.length).toBeLessThanOrEqual(width);
    }
  });

  test('does not claim 100 % before the end', () => {
    expect(progressLine(moment(4 * GIB - 1), style)).toContain(' 99 %');
  });
});
