/** The limits of throttle groups, as QEMU says them: see ThrottleLimits in qapi/block-core.json. */
import {
  THROTTLED,
  type Throttled,
  type ThrottleLimit,
  type ThrottleLimits,
} from '../../block/index.js';
import { refusal } from './refusal.js';

/** The largest value of a limit. */
const MOST = 1e15;
/** The longest burst in seconds, and the largest size of a request. */
const MOST_WORD = 2 ** 32 - 1;

/** What can be said of one limit, by the ending of its name. */
const PARTS = { '': 'average', '-max': 'most', '-max-length': 'burstSeconds' } as const;
const REQUEST_BYTES = 'iops-size';

/** Limits by the names that QEMU gives to their numbers: `bps-total`, `bps-total-max`, `bps-total-max-length`, ..., `iops-size`. */
export type NamedLimits = Readonly<Record<string, number>>;

/** The names of all numbers. */
export const LIMIT_NAMES: readonly string[] = [
  ...THROTTLED.flatMap((name) => Object.keys(PARTS).map((ending) => `${name}${ending}`)),
  REQUEST_BYTES,
];

/** The limits by their names. */
export function namedLimits({ limits, requestBytes }: ThrottleLimits): NamedLimits {
  const all = THROTTLED.flatMap((name) =>
    Object.entries(PARTS).map(([ending, part]) => [`${name}${ending}`, limits[name][part]]),
  );
  return { ...Object.fromEntries(all), [REQUEST_BYTES]: requestBytes };
}

/** The limits with some of them changed. @throws QmpCommandError in the words of QEMU where they make no sense together. */
export function changedLimits(before: ThrottleLimits, changed: NamedLimits): ThrottleLimits {
  const all = { ...namedLimits(before), ...changed };
  checkWords(changed);
  const limits = Object.fromEntries(
    THROTTLED.map((name) => {
      const parts = Object.entries(PARTS).map(([ending, part]) => [part, all[`${name}${ending}`]]);
      return [name, Object.fromEntries(parts)];
    }),
  ) as Record<Throttled, ThrottleLimit>;
  const wanted = { limits, requestBytes: all[REQUEST_BYTES] ?? 0 };
  checkTogether(wanted);
  for (const name of THROTTLED) checkOne(limits[name]);
  return wanted;
}

/** What a word of 32 bits has to hold. */
function checkWords(changed: NamedLimits): void {
  for (const [name, value] of Object.entries(changed)) {
    const isWord = name === REQUEST_BYTES || name.endsWith('-max-length');
    if (!isWord || (value >= 0 && value <= MOST_WORD)) continue;
    const what = name === REQUEST_BYTES ? 'iops-size' : name;
    throw refusal(`${what} value must be in the range [0, ${MOST_WORD}]`);
  }
}

function checkTogether({ limits, requestBytes }: ThrottleLimits): void {
  for (const part of ['average', 'most'] as const) {
    for (const unit of ['bps', 'iops'] as const) {
      const [total, read, write] = (['total', 'read', 'write'] as const).map(
        (side) => limits[`${unit}-${side}`][part] !== 0,
      );
      if (!total || !(read || write)) continue;
      throw refusal(
        'bps/iops/max total values and read/write values cannot be used at the same time',
      );
    }
  }
  const hasRequests = THROTTLED.some(
    (name) => name.startsWith('iops') && limits[name].average !== 0,
  );
  if (requestBytes !== 0 && !hasRequests)
    throw refusal('iops size requires an iops value to be set');
}

function checkOne({ average, most, burstSeconds }: ThrottleLimit): void {
  const isInside = (value: number) => value >= 0 && value <= MOST;
  if (!isInside(average) || !isInside(most)) {
    throw refusal(`bps/iops/max values must be within [0, ${MOST}]`);
  }
  if (burstSeconds === 0) throw refusal('the burst length cannot be 0');
  if (burstSeconds > 1 && most === 0) throw refusal('burst length set without burst rate');
  if (most !== 0 && burstSeconds > MOST / most) {
    throw refusal('burst length too high for this burst rate');
  }
  if (most !== 0 && average === 0) {
    throw refusal('bps_max/iops_max require corresponding bps/iops values');
  }
  if (most !== 0 && most < average) throw refusal('bps_max/iops_max cannot be lower than bps/iops');
}
