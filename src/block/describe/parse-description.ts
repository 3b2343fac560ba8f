import { LacunaError } from '../../errors/index.js';
import type { DeviceDescription } from '../contract/index.js';
import { DRIVERS, KINDS } from '../drivers/index.js';
import { checkDescription } from './check-description.js';
import { imageOf } from './questions.js';

/** The formats of disk images that can be read. */
export type ImageFormat = 'raw' | 'qcow2';

/** The bytes of the device are those of the disk. */
const RAW = 'raw';

export interface ParseOptions {
  /** The format of what is inside. Default: raw, unless a path's ending names another one. */
  readonly format?: ImageFormat;
}

/** Endings of image formats. Bytes are never looked at: a guest may have written them. */
const IMAGE_ENDING = /\.(qcow|vmdk|vdi|vhdx?)$/i;

const SCHEME = /^([a-z][a-z0-9+.-]*):\/\//i;
const DOTTED_KEYS = /^(?=.*\bdriver=)[a-z][a-z0-9.-]*=/is;

/**
 * Reads a device the way a command line says it: a path, an NBD URI, `null:`, JSON (`{...}` or `json:{...}`), or
 * QEMU's dotted keys (`driver=nbd,server.type=unix,server.path=/run/x`, with `,,` for a comma in a value).
 * A path that looks like one of the others is meant as a path when it begins with `./` or `/`.
 *
 * @throws TypeError if it is none of them; LacunaError ERR_DEVICE_FORMAT if a path names an image format.
 */
export function parseDescription(text: string, options: ParseOptions = {}): DeviceDescription {
  if (text === '')
    throw new TypeError('a device is a path, a URI or a description, not an empty text');
  if (text === '-') {
    throw new TypeError(
      '- is standard input as the source of copy, or standard output as its target, and no device; a file of this name is ./-',
    );
  }
  const { format } = options;
  if (format !== undefined && typeof format !== 'string') {
    throw new TypeError(
      `a format must be a name, such as raw or qcow2, not ${JSON.stringify(format)}`,
    );
  }
  const around = format === undefined || format === RAW ? undefined : KINDS[format]?.around;
  if (format !== undefined && format !== RAW && around === undefined)
    throw unreadable(text, format);
  const description = parseText(text, format);
  if (around === undefined || imageOf(description)?.driver === format) return description;
  return around(description) as DeviceDescription;
}

function parseText(text: string, format: ImageFormat | undefined): DeviceDescription {
  for (const { parse } of Object.values(DRIVERS)) {
    const parsed = parse?.(text);
    if (parsed !== undefined) return parsed;
  }
  if (/^(json:)?\{/.test(text)) return checkDescription(parseJson(text.replace(/^json:/, '')));
  if (DOTTED_KEYS.test(text)) return checkDescription(parseDottedKeys(text));
  const [, scheme] = SCHEME.exec(text) ?? [];
  if (scheme !== undefined) {
    throw new TypeError(
      `${scheme}:// is not a known scheme; known are nbd[s]:// and nbd[s]+unix://`,
    );
  }
  checkEnding(text, format);
  const file = { driver: 'file', filename: text } as const;
  if (format !== undefined) return file;
  const name = text.toLowerCase();
  const named = Object.values(DRIVERS).find(({ ending }) => ending && name.endsWith(ending));
  return named?.around?.(file) ?? file;
}

function checkEnding(filename: string, format: ImageFormat | undefined): void {
  const ending = IMAGE_ENDING.exec(filename)?.[1];
  if (ending !== undefined && format === undefined)
    throw unreadable(filename, ending.toLowerCase());
}

/** The name that QEMU has for a format with this ending. */
const QEMU_FORMATS: Readonly<Record<string, string>> = { vhd: 'vpc' };

function unreadable(filename: string, format: string): LacunaError {
  const serve = `serve one that is there with "qemu-nbd -f ${QEMU_FORMATS[format] ?? format} ..." and name its NBD URI`;
  const message = `${filename}: ${format} images are neither read nor made here; ${serve}, or say that the format is raw or qcow2`;
  return new LacunaError('ERR_DEVICE_FORMAT', message, { device: filename });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new TypeError(`a device description is not valid JSON: ${(cause as Error).message}`, {
      cause,
    });
  }
}

type Nested = { [key: string]: string | Nested };

function parseDottedKeys(text: string): Nested {
  const result: Nested = Object.create(null);
  // Two commas are one comma of a value; a single one begins the next key.
  for (const field of text.match(/(?:[^,]|,,)+/g) ?? []) {
    const [, path, value] = /^([^=]+)=(.*)$/s.exec(field) ?? [];
    if (path === undefined)
      throw new TypeError(`"${field}" is no key=value of a device description`);
    assign(result, path, value.replaceAll(',,', ','));
  }
  return result;
}

function assign(target: Nested, path: string, value: string): void {
  const keys = path.split('.');
  const last = keys.pop()!;
  let place = target;
  for (const key of keys) {
    place[key] ??= Object.create(null) as Nested;
    const next = place[key];
    if (typeof next === 'string') throw new TypeError(`${path}: ${key} has a value already`);
    place = next;
  }
  if (place[last] !== undefined) throw new TypeError(`${path} is said twice`);
  place[last] = value;
}
