import { LacunaError } from '../../errors/index.js';
import type { DeviceDescription } from './description.js';
import { checkDescription } from './description-check.js';
import { describeNbdUri } from './nbd-uri.js';

/** The formats of disk images that can be read. */
export type ImageFormat = 'raw' | 'qcow2';

export interface ParseOptions {
  /** The format of what is inside. Default: raw, unless a path's ending names another one. */
  readonly format?: ImageFormat;
}

/** Endings of image formats. Bytes are never looked at: a guest may have written them. */
const IMAGE_ENDING = /\.(qcow|vmdk|vdi|vhdx?)$/i;
const QCOW2_ENDING = /\.qcow2$/i;

const NBD_URI = /^nbds?(\+[a-z]+)?:/i;
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
  if (format !== undefined && format !== 'raw' && format !== 'qcow2')
    throw unreadable(text, format);
  const description = parseText(text, format);
  if (format !== 'qcow2' || description.driver === 'qcow2') return description;
  return { driver: 'qcow2', file: description };
}

function parseText(text: string, format: ImageFormat | undefined): DeviceDescription {
  if (NBD_URI.test(text)) return describeNbdUri(text);
  if (text === 'null:') return { driver: 'null' };
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
  return format === undefined && QCOW2_ENDING.test(text) ? { driver: 'qcow2', file } : file;
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
