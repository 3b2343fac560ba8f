/** What a named bitmap may be asked for in which state, and the errors that say no. */
import { LacunaError } from '../../errors/index.js';
import type { Entry } from './entry.js';

/** The states in which a command refuses a bitmap. */
export interface Refusal {
  readonly busy?: boolean;
  readonly readOnly?: boolean;
  readonly inconsistent?: boolean;
}

/** For commands that change what is dirty. */
export const CHANGES: Refusal = { busy: true, readOnly: true, inconsistent: true };
/** For commands that use a bitmap, or only change its state. */
export const USES: Refusal = { busy: true, inconsistent: true };
/** For removal, which is all that can be done to an inconsistent bitmap. */
export const REMOVES: Refusal = { busy: true };

const NAME_BYTES = 1023;

/** Throws the error for the first of these states that the bitmap is in. */
export function refuse(entry: Entry, states: Refusal, action: string): void {
  if (states.busy && entry.busy) throw busy(entry, action);
  if (states.readOnly && entry.readOnly) throw readOnly(entry.name, action);
  if (states.inconsistent && entry.inconsistent) throw inconsistent(entry.name, action);
}

/** Throws unless `name` is a text of 1 to 1023 bytes. */
export function checkName(name: string): void {
  if (typeof name !== 'string') throw new TypeError(`name must be a string, not ${typeof name}`);
  const bytes = Buffer.byteLength(name);
  if (bytes >= 1 && bytes <= NAME_BYTES) return;
  throw new RangeError(`name must have 1 to ${NAME_BYTES} bytes in UTF-8, not ${bytes}`);
}

function busy({ name, users, successor }: Entry, action: string): LacunaError {
  const why =
    successor === null
      ? `${[...users].map(({ user }) => user).join(', ')} uses it: wait until it is released`
      : 'it has a successor: abdicate or reclaim it first';
  return new LacunaError('ERR_BITMAP_BUSY', `cannot ${action} bitmap '${name}': ${why}`, {
    retryable: true,
  });
}

export function readOnly(name: string, action: string): LacunaError {
  return new LacunaError(
    'ERR_BITMAP_READONLY',
    `cannot ${action} bitmap '${name}': it is read-only. Open its store for writing first`,
  );
}

export function inconsistent(name: string, action: string): LacunaError {
  return new LacunaError(
    'ERR_BITMAP_INCONSISTENT',
    `cannot ${action} bitmap '${name}': it is inconsistent, since it was not stored after it had ` +
      'recorded, and may lack writes. Remove it and make a full copy',
  );
}

export function exists(name: string): LacunaError {
  return new LacunaError(
    'ERR_BITMAP_EXISTS',
    `cannot add bitmap '${name}': there is one of that name. Remove it or choose another name`,
  );
}

/** Bitmaps that a message names; there may be thousands. */
const MOST_NAMED = 10;

/** @param there the names of those that there are */
export function unknown(name: string, there: Iterable<string>): LacunaError {
  const names = [...there];
  const named = names.slice(0, MOST_NAMED).map((each) => `'${each}'`);
  const more = names.length > MOST_NAMED ? ` and ${names.length - MOST_NAMED} more` : '';
  const message =
    names.length === 0
      ? `there is no bitmap '${name}', nor any other: add it, or check what it is looked for in`
      : `there is no bitmap '${name}' (there are ${named.join(', ')}${more}): name one of those, or add it`;
  return new LacunaError('ERR_BITMAP_UNKNOWN', message);
}

export function wasRemoved(name: string): LacunaError {
  return new LacunaError(
    'ERR_BITMAP_UNKNOWN',
    `there is no bitmap '${name}' any more: it was removed`,
  );
}
