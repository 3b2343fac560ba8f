import { expect, it } from 'vitest';
import { RateSeries } from '#dist/job/rate-series.js';

it('tells the rate of each second', () => {
  const series = new RateSeries();
  for (const [i, done] of [100, 300, 300, 1000].entries()) series.sample(done, (i + 1) * 1000);
  expect(series.rates()).toEqual({ stepMs: 1000, bytesPerSecond: [100, 200, 0, 700] });
});

it('stays bounded however long a copy takes, and keeps its average', () => {
  const series = new RateSeries();
  const seconds = 7 * 24 * 3600;
  for (let i = 1; i <= seconds; i++) series.sample(i * 1000, i * 1000);
  const { stepMs, bytesPerSecond } = series.rates();
  expect(bytesPerSecond.length).toBeLessThan(600);
  expect(bytesPerSecond.every((rate) => rate === 1000)).toBe(true);
  expect(stepMs * bytesPerSecond.length).toBeGreaterThan(seconds * 1000 - stepMs);
});

it('tells the rate of late, never below nothing', () => {
  const series = new RateSeries();
  for (let i = 1; i <= 10; i++) series.sample(i * 1000, i * 1000);
  expect(series.now(14_000, 12_000)).toBeCloseTo(8000 / 6, 0);
  series.sample(2000, 11_000);
  expect(series.now(2000, 11_000)).toBe(0);
  expect(series.rates().bytesPerSecond.at(-1)).toBe(0);
});

it('begins anew where the bytes are counted anew, as those that are read back', () => {
  const series = new RateSeries();
  for (let i = 1; i <= 10; i++) series.sample(i * 1000, i * 1000);
  series.sample(100, 11_000);
  expect(series.now(600, 12_000)).toBe(500);
  series.sample(600, 12_000);
  expect(series.now(1600, 13_000)).toBe(750);
});

it('leaves out nothing at the end, however short', () => {
  const short = new RateSeries();
  short.finish(500, 250);
  expect(short.rates().bytesPerSecond).toEqual([2000]);
  const burst = new RateSeries();
  for (let i = 1; i <= 100; i++) burst.sample(0, i * 1000);
  burst.finish(2 ** 20, 100_500);
  expect(burst.rates().bytesPerSecond).toEqual([...Array(100).fill(0), 2 ** 21]);
  const idle = new RateSeries();
  idle.sample(100, 1000);
  idle.finish(100, 1900);
  expect(idle.rates().bytesPerSecond).toEqual([100]);
  const long = new RateSeries();
  for (let i = 1; i <= 601; i++) long.sample(i * 1000, i * 1000);
  long.finish(601_000, 601_010);
  const { stepMs, bytesPerSecond } = long.rates();
  expect([stepMs, bytesPerSecond.length, bytesPerSecond.at(-1)]).toEqual([2000, 301, 1000]);
});
