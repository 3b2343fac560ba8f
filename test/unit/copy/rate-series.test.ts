import { expect, it } from 'vitest';
import { RateSeries } from '#dist/copy/rate-series.js';

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
