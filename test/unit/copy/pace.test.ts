import { describe, expect, it } from 'vitest';
import { Pace } from '#dist/copy/pace.js';

const REQUEST = 512 * 1024;

/** Lets a device answer for some seconds, of which this much is done in a millisecond with so many requests in flight. */
function settle(pace: Pace, requestsPerMs: (lanes: number) => number): number {
  for (let now = 0; now < 5000; ) {
    now += 1 / requestsPerMs(pace.lanes);
    pace.done(REQUEST, now);
  }
  return pace.lanes;
}

describe('Pace', () => {
  it('keeps few requests in flight where more change nothing', () => {
    expect(settle(new Pace(8, 64), () => 4)).toBe(8);
  });

  it('grows as far as that helps, where every answer takes its time', () => {
    expect(settle(new Pace(8, 64), (lanes) => lanes / 5)).toBe(64);
    expect(settle(new Pace(8, 64), (lanes) => Math.min(lanes, 16) / 5)).toBe(16);
  });

  it('goes back where more requests make it slower', () => {
    expect(settle(new Pace(8, 64), (lanes) => (lanes > 8 ? 2 : 4))).toBe(8);
  });

  it('never goes beyond the most, nor back before where it began', () => {
    expect(settle(new Pace(8, 8), (lanes) => lanes)).toBe(8);
    expect(settle(new Pace(3, 10), (lanes) => lanes)).toBe(10);
    expect(settle(new Pace(8, 64), () => 0.001)).toBe(8);
  });

  it('stays where it is told to', () => {
    const pace = new Pace(8, 64);
    pace.stay(5);
    expect(settle(pace, (lanes) => lanes)).toBe(5);
  });
});
