import { describe, expect, test } from 'vitest';
import { type Moment, progressLine, RateMeter } from '#dist/cli/text/progress.js';

const GIB = 2 ** 30;

function moment(doneBytes: number, elapsedMs: number): Moment {
  return { phase: 'Copying', totalBytes: 4 * GIB, doneBytes, elapsedMs };
}

describe('progress line', () => {
  const style = { width: 100, unicode: false };

  test('shows bar, share, amount, rate and time left', () => {
    const line = progressLine(moment(GIB, 1000), GIB / 1000, style);
    expect(line).toMatch(/^Copying \[#+-+\] {2}25 % {2}1 GiB of 4 GiB {2}1 GiB\/s {2}3\.0 s left$/);
    expect(line.match(/#/g)!.length * 3).toBe(line.match(/-/g)!.length);
  });

  test('names only the phase while the total is unknown', () => {
    expect(progressLine({ ...moment(0, 0), totalBytes: 0 }, 0, style)).toBe('Copying');
  });

  test('tells how far a stream is, whose total nobody knows', () => {
    const line = progressLine({ ...moment(GIB, 1000), totalBytes: 0 }, GIB / 1000, style);
    expect(line).toBe('Copying: 1 GiB');
  });

  test('is never wider than the terminal', () => {
    for (let width = 1; width < 120; width++) {
      const line = progressLine(moment(GIB, 1000), GIB / 1000, { width, unicode: true });
      expect(line.length).toBeLessThanOrEqual(width);
    }
  });

  test('does not claim 100 % before the end', () => {
    expect(progressLine(moment(4 * GIB - 1, 1000), 1, style)).toContain(' 99 %');
  });
});

describe('rate', () => {
  test('is that of the last seconds, not of the whole run', () => {
    const meter = new RateMeter();
    expect(meter.add(moment(0, 0))).toBe(0);
    expect(meter.add(moment(1000, 1000))).toBe(1);
    for (let ms = 2000; ms <= 20_000; ms += 500) meter.add(moment(1000, ms));
    expect(meter.add(moment(1000, 20_500))).toBe(0);
  });
});
