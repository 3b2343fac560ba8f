/** Which points are kept, by rules that users of restic know. */
import { optionCheck } from '../../util/index.js';
import type { Manifest } from '../manifest/index.js';

/**
 * What is kept; a point that any rule keeps stays. Times are those of this host's time zone. Where there are fewer hours, days
 * and so on with a point than such a rule asks for, the oldest point of all stays too, as with restic.
 */
export interface KeepRules {
  /** The newest so many points. */
  readonly last?: number;
  /** The newest point of each of the last so many hours that have one. */
  readonly hourly?: number;
  /** The same for days. */
  readonly daily?: number;
  /** The same for weeks, which begin on Monday. */
  readonly weekly?: number;
  /** The same for months. */
  readonly monthly?: number;
  /** The same for years. */
  readonly yearly?: number;
  /** All points with one of these tags. */
  readonly tags?: readonly string[];
}

const check = optionCheck<KeepRules>({
  last: 'any',
  hourly: 'any',
  daily: 'any',
  weekly: 'any',
  monthly: 'any',
  yearly: 'any',
  tags: 'any',
});

/** @throws TypeError or RangeError, also where nothing would be kept. */
export function checkKeepRules(rules: KeepRules): void {
  check('prune: keep', rules);
  const { tags = [], ...counts } = rules;
  for (const [rule, count] of Object.entries(counts)) {
    if (count === undefined || (Number.isInteger(count) && count >= 0)) continue;
    throw new RangeError(`prune: keep.${rule} must be a whole number, 0 or more, not ${count}`);
  }
  if (tags.length > 0 || Object.values(counts).some((count) => (count ?? 0) > 0)) return;
  throw new TypeError(
    'prune: say what is kept, such as { last: 7 }: without a rule every point would go',
  );
}

/** What tells the bucket of a time in each rule. */
const BUCKETS: Readonly<
  Record<'hourly' | 'daily' | 'weekly' | 'monthly' | 'yearly', (time: Date) => string>
> = {
  hourly: (time) => `${dayOf(time)} ${time.getHours()}`,
  daily: dayOf,
  weekly: (time) => {
    const monday = new Date(time);
    monday.setDate(time.getDate() - ((time.getDay() + 6) % 7));
    return dayOf(monday);
  },
  monthly: (time) => `${time.getFullYear()}-${time.getMonth()}`,
  yearly: (time) => `${time.getFullYear()}`,
};

function dayOf(time: Date): string {
  return `${time.getFullYear()}-${time.getMonth()}-${time.getDate()}`;
}

/** The points that are kept, with the rules that keep each. Points are told oldest first. */
export function chooseKept(points: readonly Manifest[], rules: KeepRules): Map<number, string[]> {
  const kept = new Map<number, string[]>();
  const keep = (number: number, why: string) =>
    kept.set(number, [...(kept.get(number) ?? []), why]);
  const newestFirst = [...points].reverse();
  for (const { number } of newestFirst.slice(0, rules.last ?? 0)) keep(number, 'last');
  for (const [rule, bucketOf] of Object.entries(BUCKETS)) {
    let left = rules[rule as keyof typeof BUCKETS] ?? 0;
    let bucket: string | undefined;
    for (const [i, { number, time }] of newestFirst.entries()) {
      const own = bucketOf(new Date(time));
      if (left === 0) break;
      if (own === bucket) {
        if (i === newestFirst.length - 1) keep(number, `oldest ${rule}`);
        continue;
      }
      bucket = own;
      left--;
      keep(number, rule);
    }
  }
  for (const { number, tags } of points) {
    const tag = tags.find((one) => rules.tags?.includes(one));
    if (tag !== undefined) keep(number, `tag ${tag}`);
  }
  return kept;
}
