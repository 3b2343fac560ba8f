/**
 * Header extensions ("Header extensions" of the format's description): a type, a length, and as many bytes, padded
 * to 8. Those that are not known are kept, so that they survive when the header is written anew.
 */
import { exactText, readU64, viewOf, writeU64 } from '../util/index.js';
import { corrupt, oddName } from './failures.js';
import { FEATURE_KINDS, type FeatureName } from './features.js';
import { readText, textBytes } from './text.js';

export const ExtensionType = {
  end: 0,
  backingFormat: 0xe2792aca,
  featureNames: 0x6803f857,
  bitmaps: 0x23852875,
  encryption: 0x0537be77,
  dataFile: 0x44415441,
} as const;

/** "Bitmaps extension": only to be believed while the header's autoclear bit says so. */
export interface BitmapsExtension {
  readonly count: number;
  /** Bytes. */
  readonly directorySize: number;
  readonly directoryOffset: number;
}

export interface UnknownExtension {
  readonly type: number;
  readonly data: Uint8Array;
}

export interface Extensions {
  readonly backingFormat?: string;
  readonly dataFile?: string;
  readonly featureNames: readonly FeatureName[];
  readonly bitmaps?: BitmapsExtension;
  readonly unknown: readonly UnknownExtension[];
}

const NO_EXTENSIONS: Extensions = { featureNames: [], unknown: [] };

const BITMAPS_BYTES = 24;
const FEATURE_BYTES = 48;
const FEATURE_NAME_BYTES = 46;
const HEAD_BYTES = 8;

/**
 * Reads the extensions between two bytes of the first cluster.
 *
 * @throws LacunaError ERR_QCOW2_CORRUPT where one is longer than its place, or not what its type says;
 * ERR_QCOW2_UNSUPPORTED where the name of a data file is not valid UTF-8.
 */
export function parseExtensions(
  bytes: Uint8Array,
  start: number,
  end: number,
  image: string,
): Extensions {
  const view = viewOf(bytes);
  const found: { -readonly [K in keyof Extensions]: Extensions[K] } = { ...NO_EXTENSIONS };
  const unknown: UnknownExtension[] = [];
  for (let at = start; at + HEAD_BYTES <= end; ) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === ExtensionType.end) break;
    const from = at + HEAD_BYTES;
    if (length > end - from) {
      const what = `header extension 0x${type.toString(16)} of ${length} bytes`;
      throw corrupt(image, `${what} reaches beyond its place, which ends at ${end}`, at);
    }
    const data = bytes.subarray(from, from + length);
    if (type === ExtensionType.backingFormat) found.backingFormat = readText(data);
    else if (type === ExtensionType.dataFile) found.dataFile = dataFileName(data, image);
    else if (type === ExtensionType.featureNames) found.featureNames = parseFeatureNames(data);
    else if (type === ExtensionType.bitmaps) found.bitmaps = parseBitmaps(data, image, at);
    else unknown.push({ type, data: data.slice() });
    at = from + padded(length);
  }
  return { ...found, unknown };
}

function dataFileName(data: Uint8Array, image: string): string {
  const name = exactText(data);
  if (name === undefined) throw oddName(image, 'data file');
  return name;
}

/** The extensions as bytes, their end mark included. */
export function encodeExtensions(extensions: Extensions): Uint8Array {
  const { backingFormat, dataFile, featureNames, bitmaps, unknown } = extensions;
  const parts: UnknownExtension[] = [];
  if (backingFormat !== undefined) {
    parts.push({ type: ExtensionType.backingFormat, data: textBytes(backingFormat) });
  }
  if (dataFile !== undefined) {
    parts.push({ type: ExtensionType.dataFile, data: textBytes(dataFile) });
  }
  if (featureNames.length > 0) {
    parts.push({ type: ExtensionType.featureNames, data: encodeFeatureNames(featureNames) });
  }
  if (bitmaps !== undefined) {
    parts.push({ type: ExtensionType.bitmaps, data: encodeBitmaps(bitmaps) });
  }
  return join([...parts, ...unknown, { type: ExtensionType.end, data: new Uint8Array(0) }]);
}

function join(parts: readonly UnknownExtension[]): Uint8Array {
  const length = parts.reduce((sum, { data }) => sum + HEAD_BYTES + padded(data.length), 0);
  const bytes = new Uint8Array(length);
  const view = viewOf(bytes);
  let at = 0;
  for (const { type, data } of parts) {
    view.setUint32(at, type);
    view.setUint32(at + 4, data.length);
    bytes.set(data, at + HEAD_BYTES);
    at += HEAD_BYTES + padded(data.length);
  }
  return bytes;
}

function padded(length: number): number {
  return Math.ceil(length / 8) * 8;
}

function parseFeatureNames(data: Uint8Array): FeatureName[] {
  const names: FeatureName[] = [];
  for (let at = 0; at + FEATURE_BYTES <= data.length; at += FEATURE_BYTES) {
    const kind = FEATURE_KINDS[data[at]];
    if (kind === undefined) continue;
    const name = readText(data.subarray(at + 2, at + FEATURE_BYTES)).replace(/\0.*$/s, '');
    names.push({ kind, bit: data[at + 1], name });
  }
  return names;
}

function encodeFeatureNames(names: readonly FeatureName[]): Uint8Array {
  const data = new Uint8Array(names.length * FEATURE_BYTES);
  for (const [i, { kind, bit, name }] of names.entries()) {
    const at = i * FEATURE_BYTES;
    data[at] = FEATURE_KINDS.indexOf(kind);
    data[at + 1] = bit;
    data.set(textBytes(name).subarray(0, FEATURE_NAME_BYTES), at + 2);
  }
  return data;
}

function parseBitmaps(data: Uint8Array, image: string, at: number): BitmapsExtension {
  if (data.length !== BITMAPS_BYTES) {
    throw corrupt(image, `a bitmaps extension of ${data.length} bytes instead of 24`, at);
  }
  const view = viewOf(data);
  return {
    count: view.getUint32(0),
    directorySize: readU64(view, 8),
    directoryOffset: readU64(view, 16),
  };
}

function encodeBitmaps({ count, directorySize, directoryOffset }: BitmapsExtension): Uint8Array {
  const data = new Uint8Array(BITMAPS_BYTES);
  const view = viewOf(data);
  view.setUint32(0, count);
  writeU64(view, 8, directorySize);
  writeU64(view, 16, directoryOffset);
  return data;
}
