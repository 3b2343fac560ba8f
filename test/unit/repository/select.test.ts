import { afterEach, expect, test, vi } from 'vitest';
import { selectPoint } from '#dist/repository/points/index.js';

afterEach(() => vi.unstubAllEnvs());

/** A machine with points of these times. */
function storeOf(...times: string[]) {
  const points = times.map((time, i) => ({ number: i + 1, time: new Date(time).toISOString() }));
  const get = (number: number) => points[number - 1];
  return { machines: () => ['m'], points: () => ({ points, problems: [], get }) } as never;
}

test.each([
  ['has 23 hours', '2026-03-08'],
  ['has 24 hours', '2026-06-01'],
  ['has 25 hours', '2026-11-01'],
])('a day that %s means the last point before its end', (_, day) => {
  vi.stubEnv('TZ', 'America/New_York');
  const next = new Date(`${day}T24:00`).getTime();
  const late = new Date(next - 60_000).toISOString();
  const store = storeOf(`${day}T00:30`, late, new Date(next).toISOString());
  expect(selectPoint(store, day).manifest).toMatchObject({ number: 2 });
});
