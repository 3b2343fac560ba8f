import { afterEach, describe, expect, test, vi } from 'vitest';
import { checkKeepRules, chooseKept, type KeepRules } from '#dist/repository/prune/keep.js';

/** Points with these times, as this host counts them, oldest first. */
function points(...times: string[]) {
  return times.map((time, i) => ({
    number: i + 1,
    time: new Date(time).toISOString(),
    tags: i === 0 ? ['first'] : [],
  })) as never;
}

function kept(rules: KeepRules, ...times: string[]): number[] {
  return [...chooseKept(points(...times), rules).keys()].sort((a, b) => a - b);
}

const TIMES = [
  '2025-12-31T23:50',
  '2026-01-01T00:10',
  '2026-01-04T12:00',
  '2026-01-05T01:00',
  '2026-01-05T01:30',
  '2026-01-05T02:00',
  '2026-02-01T00:00',
];

describe('the rules keep', () => {
  test.each<[string, KeepRules, number[]]>([
    ['the newest points', { last: 2 }, [6, 7]],
    ['the newest point of each hour', { hourly: 3 }, [5, 6, 7]],
    ['the newest point of each day that has one', { daily: 3 }, [3, 6, 7]],
    ['the newest point of each week, which begins on Monday', { weekly: 3 }, [3, 6, 7]],
    ['the newest point of each month', { monthly: 2 }, [6, 7]],
    ['the newest point of each year', { yearly: 5 }, [1, 7]],
    ['what has one of the tags', { tags: ['first', 'other'] }, [1]],
    ['what any of them keeps', { last: 1, yearly: 2, tags: ['first'] }, [1, 7]],
  ])('%s', (_, rules, numbers) => {
    expect(kept(rules, ...TIMES)).toEqual(numbers);
  });

  test('and say which of them does', () => {
    const rules = chooseKept(points(...TIMES), { last: 1, daily: 1, tags: ['first'] });
    expect(Object.fromEntries(rules)).toEqual({ 1: ['tag first'], 7: ['last', 'daily'] });
  });
});

describe('at the borders of time the rules keep', () => {
  afterEach(() => vi.unstubAllEnvs());

  test.each<[string, string, KeepRules, string[], number[]]>([
    [
      'one point of a day of 25 hours',
      'America/New_York',
      { daily: 2 },
      ['2026-10-31T23:59-04:00', '2026-11-01T00:01-04:00', '2026-11-01T23:59-05:00'],
      [1, 3],
    ],
    [
      'one point of a day of 23 hours',
      'America/New_York',
      { daily: 2 },
      ['2026-03-07T23:59-05:00', '2026-03-08T00:01-05:00', '2026-03-08T23:59-04:00'],
      [1, 3],
    ],
    [
      'one point of an hour that the clock shows twice, as restic does',
      'Europe/Berlin',
      { hourly: 2 },
      ['2026-10-25T01:30+02:00', '2026-10-25T02:30+02:00', '2026-10-25T02:30+01:00'],
      [1, 3],
    ],
    [
      'two points of hours on both sides of one that the clock leaves out',
      'Europe/Berlin',
      { hourly: 2 },
      ['2026-03-29T00:30+01:00', '2026-03-29T01:30+01:00', '2026-03-29T03:30+02:00'],
      [2, 3],
    ],
    [
      'one point of a week whose Sunday has no midnight',
      'America/Sao_Paulo',
      { weekly: 2 },
      ['2017-10-14T23:30-03:00', '2017-10-15T01:00-02:00', '2017-10-16T00:30-02:00'],
      [2, 3],
    ],
    [
      'one point of a week that lies in two years',
      'UTC',
      { weekly: 2 },
      ['2024-12-29T23:59Z', '2024-12-30T00:00Z', '2025-01-01T12:00Z', '2025-01-05T23:59Z'],
      [1, 4],
    ],
    [
      'the last points of two months and years, by the clocks of this host',
      'Asia/Tokyo',
      { monthly: 2, yearly: 2 },
      ['2025-12-31T14:59Z', '2025-12-31T15:00Z', '2026-01-31T14:59Z'],
      [1, 3],
    ],
    [
      'a day that comes once in four years',
      'UTC',
      { daily: 3 },
      ['2028-02-28T12:00Z', '2028-02-29T12:00Z', '2028-03-01T12:00Z'],
      [1, 2, 3],
    ],
  ])('%s (%s)', (_, zone, rules, times, numbers) => {
    vi.stubEnv('TZ', zone);
    expect(kept(rules, ...times)).toEqual(numbers);
  });

  test('the newest points by their order, where a clock that was wrong says otherwise', () => {
    expect(kept({ last: 2 }, '2026-05-01T12:00', '1970-01-01T00:00', '2026-05-02T12:00')).toEqual([
      2, 3,
    ]);
  });
});

test('where a rule is not used up, the oldest point of all stays too', () => {
  expect(Object.fromEntries(chooseKept(points(...TIMES.slice(3, 6)), { daily: 2 }))).toEqual({
    1: ['oldest daily'],
    3: ['daily'],
  });
  expect(kept({ daily: 1 }, ...TIMES.slice(3, 6))).toEqual([3]);
});

test('rules that keep nothing, or make no sense, are refused', () => {
  expect(() => checkKeepRules({})).toThrow(/say what is kept/);
  expect(() => checkKeepRules({ last: 0 })).toThrow(/say what is kept/);
  expect(() => checkKeepRules({ daily: 1.5 })).toThrow(RangeError);
  expect(() => checkKeepRules({ latest: 1 } as never)).toThrow(/did you mean "last"|last/);
});
