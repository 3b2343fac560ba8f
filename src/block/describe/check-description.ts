import { type DeviceDescription, flag, type Keys, text, variant } from '../contract/index.js';
import { DRIVERS } from '../drivers/index.js';

const COMMON: Keys = {
  driver: { read: text },
  'read-only': { read: flag },
  'force-share': { read: flag },
};

const VARIANTS: Readonly<Record<string, Keys>> = Object.fromEntries(
  Object.entries(DRIVERS).map(([name, { keys }]) => [name, { ...COMMON, ...keys }]),
);

/** Descriptions inside descriptions, as of a long chain: deeper ones would not be opened anyway. */
const DEEPEST = 512;

/**
 * Checks a description that came from outside (JSON, dotted keys, a caller without types) and returns it with every
 * value in its own type: numbers and flags may be texts, as QEMU takes them.
 *
 * @throws TypeError naming the key that is unknown, missing or of the wrong type, and what is known.
 */
export function checkDescription(value: unknown): DeviceDescription {
  return read(value, '') as unknown as DeviceDescription;
}

/** A description in which other devices may be meant by their names. */
export interface NamedDescription {
  /** The device that is there under this name. */
  readonly node?: string;
  /** What the described one is called. */
  readonly 'node-name'?: string;
}

/**
 * As {@link checkDescription}, for devices with names: the name of another one may stand where a description may, and
 * becomes `{ node: NAME }`; `node-name` says what a described one is called.
 *
 * @param others drivers beside those that are always there
 */
export function checkNamedDescription(
  value: unknown,
  others: Readonly<Record<string, Keys>> = {},
): DeviceDescription & NamedDescription {
  const variants = { ...VARIANTS, ...mapped(others) };
  const nested = (given: unknown, path: string): Record<string, unknown> => {
    if (path.split('.').length > DEEPEST) throw new TypeError('a device description is too deep');
    if (typeof given === 'string') return { node: text(given, path) };
    const { 'node-name': name, ...own } = Object(given) as Record<string, unknown>;
    const isObject = typeof given === 'object' && given !== null && !Array.isArray(given);
    const options = { path, selector: 'driver', variants, nested };
    const checked = variant(isObject ? own : given, options);
    return name === undefined
      ? checked
      : { ...checked, 'node-name': text(name, `${path}node-name`) };
  };
  return nested(value, '') as unknown as DeviceDescription & NamedDescription;
}

function mapped(others: Readonly<Record<string, Keys>>): Record<string, Keys> {
  return Object.fromEntries(
    Object.entries(others).map(([name, keys]) => [name, { ...COMMON, ...keys }]),
  );
}

function read(value: unknown, path: string): Record<string, unknown> {
  if (path.split('.').length > DEEPEST) throw new TypeError('a device description is too deep');
  return variant(value, { path, selector: 'driver', variants: VARIANTS, nested: read });
}
