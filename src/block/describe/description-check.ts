import { parseSize, SIZE_LIMIT } from '../../util/index.js';
import type { DeviceDescription } from './description.js';

/** Turns a value of JSON, or a text, into the value of a key; throws a TypeError that names the key. */
type Reader = (value: unknown, key: string) => unknown;

interface Key {
  readonly read: Reader;
  readonly required?: boolean;
}

type Keys = Readonly<Record<string, Key>>;

const COMMON: Keys = {
  driver: { read: text },
  'read-only': { read: flag },
  'force-share': { read: flag },
};

const SERVERS: Readonly<Record<string, Keys>> = {
  unix: { type: { read: text }, path: { read: text, required: true } },
  inet: {
    type: { read: text },
    host: { read: text, required: true },
    port: { read: port, required: true },
  },
};

const TLS: Readonly<Record<string, Keys>> = {
  x509: {
    type: { read: text },
    certificates: { read: text },
    ca: { read: text },
    cert: { read: text },
    key: { read: text },
    hostname: { read: text },
    'verify-peer': { read: flag },
  },
  psk: {
    type: { read: text },
    username: { read: text },
    'psk-file': { read: text },
    key: { read: text },
  },
};

const DRIVERS: Readonly<Record<DeviceDescription['driver'], Keys>> = {
  file: {
    ...COMMON,
    filename: { read: text, required: true },
    locking: { read: (value, key) => oneOf(value, key, ['on', 'off', 'auto']) },
    inode: { read: text },
  },
  memory: { ...COMMON, size: { read: size, required: true } },
  nbd: {
    ...COMMON,
    server: { read: (value, key) => variant(value, key, 'type', SERVERS), required: true },
    export: { read: text },
    tls: { read: (value, key) => variant(value, key, 'type', TLS) },
    contexts: { read: texts },
    allocation: { read: flag },
    'reconnect-delay': { read: seconds },
    'open-timeout': { read: seconds },
    'connect-timeout': { read: timeout },
    'request-timeout': { read: timeout },
  },
  null: { ...COMMON, size: { read: size } },
  qcow2: {
    ...COMMON,
    file: { read: nested, required: true },
    backing: { read: (value, key) => (value === null || value === '' ? null : nested(value, key)) },
    'data-file': { read: nested },
    snapshot: { read: text },
    mapping: { read: (value, key) => oneOf(value, key, ['fixed']) },
    compress: { read: flag },
    rescue: { read: flag },
    'backing-folders': { read: texts },
  },
};

/** Descriptions inside descriptions, as of a long chain: deeper ones would not be opened anyway. */
const DEEPEST = 512;

/**
 * Checks a description that came from outside (JSON, dotted keys, a caller without types) and returns it with every
 * value in its own type: numbers and flags may be texts, as QEMU takes them.
 *
 * @throws TypeError naming the key that is unknown, missing or of the wrong type, and what is known.
 */
export function checkDescription(value: unknown): DeviceDescription {
  return variant(value, '', 'driver', DRIVERS) as unknown as DeviceDescription;
}

function nested(value: unknown, key: string): Record<string, unknown> {
  if (key.split('.').length > DEEPEST) throw new TypeError('a device description is too deep');
  return variant(value, key, 'driver', DRIVERS);
}

/** Reads an object whose keys depend on the value of one of them. */
function variant(
  value: unknown,
  path: string,
  selector: string,
  variants: Readonly<Record<string, Keys>>,
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
  return readKeys(given, path, `${selector} ${chosen}`, variants[chosen]);
}

function readKeys(given: Record<string, unknown>, path: string, owner: string, keys: Keys) {
  const result: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined) continue;
    if (!Object.hasOwn(keys, key)) {
      const known = Object.keys(keys).join(', ');
      throw new TypeError(`${join(path, key)} is unknown; ${owner} has the keys: ${known}`);
    }
    result[key] = keys[key].read(value, join(path, key));
  }
  for (const [key, { required }] of Object.entries(keys)) {
    if (required && result[key] === undefined) {
      throw new TypeError(`${join(path, key)} is missing; ${owner} needs it`);
    }
  }
  return result;
}

function text(value: unknown, key: string): string {
  if (typeof value !== 'string' || value.includes('\0')) throw wrong(key, 'a text', value);
  // Half of a character would become another one on its way to the system, and so the name of another file.
  if (/\p{Surrogate}/u.test(value)) throw wrong(key, 'a text of whole characters', value);
  return value;
}

function texts(value: unknown, key: string): string[] {
  // Dotted keys number the items: contexts.0=a,contexts.1=b
  const isNumbered = typeof value === 'object' && value !== null && !Array.isArray(value);
  const items = isNumbered ? Object.values(value) : value;
  if (!Array.isArray(items)) throw wrong(key, 'a list of texts', value);
  return items.map((item, index) => text(item, `${key}.${index}`));
}

function oneOf(value: unknown, key: string, choices: readonly string[]): string {
  if (typeof value === 'string' && choices.includes(value)) return value;
  throw wrong(key, choices.join(' or '), value);
}

function flag(value: unknown, key: string): boolean {
  if (typeof value === 'boolean') return value;
  if (value === 'on' || value === 'true') return true;
  if (value === 'off' || value === 'false') return false;
  throw wrong(key, 'true or false', value);
}

function size(value: unknown, key: string): number {
  const bytes = typeof value === 'string' ? parseSize(value) : value;
  if (typeof bytes === 'number' && Number.isSafeInteger(bytes) && bytes >= 0) return bytes;
  const isTooLarge = typeof bytes === 'number' && bytes > Number.MAX_SAFE_INTEGER;
  throw wrong(key, isTooLarge ? `a size of at most ${SIZE_LIMIT}` : 'a size in bytes', value);
}

function seconds(value: unknown, key: string): number {
  const number = typeof value === 'string' && /^[\d.]+$/.test(value) ? Number(value) : value;
  if (typeof number === 'number' && number >= 0 && number <= 2 ** 31) return number;
  throw wrong(key, 'a number of seconds', value);
}

/** Above this a timer of Node fires at once. */
const LONGEST_TIMEOUT = 2_000_000;

function timeout(value: unknown, key: string): number {
  const number = seconds(value, key);
  if (number <= LONGEST_TIMEOUT) return number;
  throw new TypeError(`${key} must be ${LONGEST_TIMEOUT} seconds at most, or 0 for no limit`);
}

function port(value: unknown, key: string): number {
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
