import { constants } from 'node:os';
import { LacunaError } from '../../errors/index.js';
import { counted } from '../../util/index.js';
import type { SharedCounters } from '../../wasm/index.js';
import {
  type BlockDevice,
  type CommonDescription,
  fraction,
  oneOf,
  ordinal,
  size,
  someOf,
} from '../contract/index.js';
import { filterKind } from './filter-kind.js';
import { type Around, type FilterDescription, OPERATIONS, type Operation } from './pass-through.js';

/** Makes requests fail, to try what happens then. */
export interface ErrorDescription extends CommonDescription, FilterDescription {
  /** Makes requests fail. */
  driver: 'error';
  /** The requests that may fail: `read`, `write`, `zero`, `discard`, `flush`, `status`. Default: all. */
  operations?: Operation[];
  /** Only requests that touch the bytes from here on. Default 0. A flush touches all. */
  offset?: number;
  /** Only requests that touch one of so many bytes. Default: up to the end. */
  length?: number;
  /** Of those, the one with this number fails, and no other; the first is 1. They are counted over all openings. */
  nth?: number;
  /** Of those, about this share fails, from 0 to 1, each by its number. Default 1, or with `nth` 0. */
  rate?: number;
  /** The system's name of the error. Default `EIO`. */
  errno?: string;
  /** What one opening hands to the next, in other threads too; not to be said. */
  shared?: SharedArrayBuffer;
}

declare module '../contract/description.js' {
  interface Descriptions {
    /** Requests that fail. */
    error: ErrorDescription;
  }
}

export const error = filterKind<ErrorDescription>({
  keys: {
    operations: { read: someOf(...OPERATIONS) },
    offset: { read: size },
    length: { read: size },
    nth: { read: ordinal },
    rate: { read: fraction },
    errno: { read: oneOf(...Object.keys(constants.errno)) },
  },
  counters: 1,
  around: failing,
});

function failing(
  {
    operations = [...OPERATIONS],
    offset: from = 0,
    length: range = Number.POSITIVE_INFINITY,
    nth,
    rate = nth === undefined ? 1 : 0,
    errno = 'EIO',
  }: ErrorDescription,
  counters: SharedCounters,
  { name }: BlockDevice,
): Around {
  const chosen = new Set<Operation>(operations);
  const touches = (operation: Operation, offset: number, length: number) =>
    operation === 'flush' || (offset < from + range && offset + length > from);
  return async ({ operation, offset, length }, pass) => {
    if (!chosen.has(operation) || !touches(operation, offset, length)) return await pass();
    const number = counters.add(0, 1) + 1;
    if (number !== nth && !falls(number, rate)) return await pass();
    const message = `${name}: ${operation} of ${counted(length, 'byte')} at ${offset} fails with ${errno}, as the filter "error" was told`;
    throw new LacunaError('ERR_DEVICE_IO', message, { device: name, offset, length, errno });
  };
}

/** Whether a request falls to a share; the same for the same number, in every run. */
function falls(number: number, share: number): boolean {
  // Multiplying by an odd constant spreads neighbours over all 32 bits (Knuth's multiplicative hashing).
  return (Math.imul(number, 0x9e3779b1) >>> 0) / 2 ** 32 < share;
}
