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

function read(value: unknown, path: string): Record<string, unknown> {
  if (path.split('.').length > DEEPEST) throw new TypeError('a device description is too deep');
  return variant(value, { path, selector: 'driver', variants: VARIANTS, nested: read });
}
