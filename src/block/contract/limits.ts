import assert from 'node:assert/strict';
import { alignDown, isPowerOfTwo, optionCheck } from '../../util/index.js';
import type { Capabilities, Driver, Limits } from './driver.js';

/**
 * The limits of a driver, with maxima that are multiples of the minimum, so that every piece but the last is
 * made of whole blocks.
 *
 * @throws AssertionError if the driver breaks its contract.
 */
export function checkedLimits(limits: Limits): Limits {
  for (const key of ['minimum', 'preferred', 'zeroAlignment', 'discardAlignment'] as const) {
    assert(isPowerOfTwo(limits[key]), `limits.${key} must be a power of two, not ${limits[key]}`);
  }
  const { minimum, statusMinimum = minimum } = limits;
  const finer = isPowerOfTwo(statusMinimum) && statusMinimum <= minimum;
  assert(
    finer,
    `limits.statusMinimum must be a power of two up to ${minimum}, not ${statusMinimum}`,
  );
  const maximum = alignDown(limits.maximum, minimum);
  const maximumZero = alignDown(limits.maximumZero, minimum);
  assert(maximum > 0, `limits.maximum ${limits.maximum} is below the minimum ${limits.minimum}`);
  assert(maximumZero > 0, `limits.maximumZero ${limits.maximumZero} is below the minimum`);
  return { ...limits, maximum, maximumZero };
}

const NOTHING: Required<Capabilities> = {
  write: false,
  zero: false,
  fastZero: false,
  discard: false,
  flush: false,
  contexts: [],
  contextsTogether: false,
  exactStatus: false,
  multiConnection: false,
  knownZero: false,
};

/** What a driver can really do: an operation needs its method, and every change needs `write`. */
export function derivedCapabilities(driver: Driver, readOnly: boolean): Required<Capabilities> {
  const can = everyOne(driver.capabilities);
  const write = !readOnly && can.write && driver.write !== undefined;
  const zero = write && can.zero && driver.zero !== undefined;
  return {
    ...can,
    write,
    zero,
    fastZero: zero && can.fastZero,
    discard: write && can.discard && driver.discard !== undefined,
    flush: write && can.flush && driver.flush !== undefined,
    contexts: driver.extents === undefined ? [] : [...can.contexts],
  };
}

/** Asked one by one: a filter may pass on as undefined what the driver below it leaves out, or work them out by getters. */
function everyOne(capabilities: Capabilities): Required<Capabilities> {
  const keys = Object.keys(NOTHING) as (keyof Capabilities)[];
  const said = keys.map((key) => [key, capabilities[key] ?? NOTHING[key]]);
  return Object.fromEntries(said) as Required<Capabilities>;
}

export const checkDriverLimits = optionCheck<Limits>({
  minimum: { needed: 'bytes that offsets and lengths are multiples of' },
  statusMinimum: 'any',
  preferred: { needed: 'bytes of a request that is fast' },
  maximum: { needed: 'bytes of the longest read or write' },
  maximumZero: { needed: 'bytes of the longest zero or discard request' },
  zeroAlignment: { needed: 'bytes that zero requests should be multiples of' },
  discardAlignment: { needed: 'bytes that discards should be multiples of' },
});

export const checkCapabilities = optionCheck<Capabilities>({
  write: 'flag',
  zero: 'flag',
  fastZero: 'flag',
  discard: 'flag',
  flush: 'flag',
  contexts: 'any',
  contextsTogether: 'flag',
  exactStatus: 'flag',
  multiConnection: 'flag',
  knownZero: 'flag',
});
