/** How the values of a description are read: from JSON, or from the texts of dotted keys. */
import { parseSize, SIZE_LIMIT } from '../../util/index.js';

/** Turns a value of JSON, or a text, into the value of a key; throws a TypeError that names the key. */
type Reader = (value: unknown, key: string, nested: Reader) => unknown;

/** A key of a description. */
export interface Key {
  /** Reads its value; `nested` reads a description inside it. */
  readonly read: Reader;
  readonly required?: boolean;
  /** Nobody says it by hand, so messages do not name it. */
  readonly isHidden?: boolean;
}

export type Keys = Readonly<Record<string, Key>>;

interface Variant {
  /** Where the object stands; empty for the whole description. */
  readonly path: string;
  /** The key whose value says which keys there are. */
  readonly selector: string;
  readonly variants: Readonly<Record<string, Keys>>;
  readonly nested: Reader;
}

/** Reads an object whose keys depend on the value of one of them. */
export function variant(
  value: unknown,
  { path, selector, variants, nested }: Variant,
): Record<string, unknown> {
  const what = path === '' ? 'a device description' : path;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new TypeError(`${what} must be an object, not ${JSON.stringify(value)}`);
  }
  const given = value as Record<string, unknown>;
  const chosen = given[selector];
  if (typeof chosen !== 'string' || !Object.hasOwn(variants, chosen)) {
    const known = Object.keys(variants).join(', ');
    const problem = chosen === undefined ? 'is missing' : `cannot be ${JSON.stringify(chosen)}`;
    throw new TypeError(`${join(path, selector)} ${problem}; it is one of: ${known}`);
  }
  return readKeys(given, { path, owner: `${selector} ${chosen}`, keys: variants[chosen], nested });
}

function readKeys(
  given: Record<string, unknown>,
  { path, owner, keys, nested }: { path: string; owner: string; keys: Keys; nested: Reader },
): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined) continue;
    if (!Object.hasOwn(keys, key)) {
      const said = Object.keys(keys).filter((name) => !keys[name].isHidden);
      const known = said.join(', ');
      throw new TypeError(`${join(path, key)} is unknown; ${owner} has the keys: ${known}`);
    }
    result[key] = keys[key].read(value, join(path, key), nested);
  }
  for (const [key, { required }] of Object.entries(keys)) {
    if (required && result[key] === undefined) {
      throw new TypeError(`${join(path, key)} is missing; ${owner} needs it`);
    }
  }
  return result;
}

export function text(value: unknown, key: string): string {
  if (typeof value !== 'string' || value.includes('\0')) throw wrong(key, 'a text', value);
  // Half of a character would become another one on its way to the system, and so the name of another file.
  if (/\p{Surrogate}/u.test(value)) throw wrong(key, 'a text of whole characters', value);
  return value;
}

export function texts(value: unknown, key: string): string[] {
  // Dotted keys number the items: contexts.0=a,contexts.1=b
  const isNumbered = typeof value === 'object' && value !== null && !Array.isArray(value);
  const items = isNumbered ? Object.values(value) : value;
  if (!Array.isArray(items)) throw wrong(key, 'a list of texts', value);
  return items.map((item, index) => text(item, `${key}.${index}`));
}

/** One of some words. */
export function oneOf(...choices: readonly string[]): Reader {
  return (value, key) => choose(value, key, choices);
}

/** A description inside another one. */
export function description(value: unknown, key: string, nested: Reader): unknown {
  return nested(value, key, nested);
}

/** An object whose keys depend on its own `type`. */
export function byType(variants: Readonly<Record<string, Keys>>): Reader {
  return (value, path, nested) => variant(value, { path, selector: 'type', variants, nested });
}

function choose(value: unknown, key: string, choices: readonly string[]): string {
  if (typeof value === 'string' && choices.includes(value)) return value;
  throw wrong(key, choices.join(' or '), value);
}

export function flag(value: unknown, key: string): boolean {
  if (typeof value === 'boolean') return value;
  if (value === 'on' || value === 'true') return true;
  if (value === 'off' || value === 'false') return false;
  throw wrong(key, 'true or false', value);
}

export function size(value: unknown, key: string): number {
  const bytes = typeof value === 'string' ? parseSize(value) : value;
  if (typeof bytes === 'number' && Number.isSafeInteger(bytes) && bytes >= 0) return bytes;
  const isTooLarge = typeof bytes === 'number' && bytes > Number.MAX_SAFE_INTEGER;
  throw wrong(key, isTooLarge ? `a size of at most ${SIZE_LIMIT}` : 'a size in bytes', value);
}

export function seconds(value: unknown, key: string): number {
  const number = typeof value === 'string' && /^[\d.]+$/.test(value) ? Number(value) : value;
  if (typeof number === 'number' && number >= 0 && number <= 2 ** 31) return number;
  throw wrong(key, 'a number of seconds', value);
}

/** A number above 0. */
export function positive(value: unknown, key: string): number {
  const number = numberIn(value);
  if (number > 0 && number <= Number.MAX_SAFE_INTEGER) return number;
  throw wrong(key, 'a number above 0', value);
}

/** Which one of several: 1, 2, 3 and so on. */
export function ordinal(value: unknown, key: string): number {
  const number = numberIn(value);
  if (Number.isSafeInteger(number) && number >= 1) return number;
  throw wrong(key, 'a whole number above 0', value);
}

/** A number from 0 to 1. */
export function fraction(value: unknown, key: string): number {
  const number = numberIn(value);
  if (number >= 0 && number <= 1) return number;
  throw wrong(key, 'a number from 0 to 1', value);
}

/** A time of up to a day. */
export function milliseconds(value: unknown, key: string): number {
  const number = numberIn(value);
  if (number >= 0 && number <= 86_400_000) return number;
  throw wrong(key, 'a number of milliseconds, 0 to 86400000', value);
}

function numberIn(value: unknown): number {
  if (typeof value === 'string' && /^\d+(\.\d+)?$/.test(value)) return Number(value);
  return typeof value === 'number' ? value : Number.NaN;
}

/** A list of some words. */
export function someOf(...choices: readonly string[]): Reader {
  return (value, key) => {
    const given = texts(value, key);
    for (const [index, item] of given.entries()) choose(item, `${key}.${index}`, choices);
    return given;
  };
}

/** Above this a timer of Node fires at once. */
const LONGEST_TIMEOUT = 2_000_000;

export function timeout(value: unknown, key: string): number {
  const number = seconds(value, key);
  if (number <= LONGEST_TIMEOUT) return number;
  throw new TypeError(`${key} must be ${LONGEST_TIMEOUT} seconds at most, or 0 for no limit`);
}

export function port(value: unknown, key: string): number {
  const number = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value;
  if (Number.isInteger(number) && Number(number) >= 1 && Number(number) <= 65535)
    return number as number;
  throw wrong(key, 'a port number, 1 to 65535', value);
}

function wrong(key: string, wanted: string, value: unknown): TypeError {
  return new TypeError(`${key} must be ${wanted}, not ${JSON.stringify(value)}`);
}

function join(path: string, key: string): string {
  return path === '' ? key : `${path}.${key}`;
}
