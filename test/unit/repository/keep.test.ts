import { describe, expect, test } from 'vitest';
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
