/**
 * Where the bitmaps extension stands in the first cluster ("Header extensions"). It is written in place, because what
 * stands around it must not be lost when the power fails.
 */
import { readU64, viewOf, writeU64 } from '../util/index.js';
import { type BitmapsExtension, ExtensionType } from './extensions.js';
import { V2_HEADER_BYTES } from './limits.js';

const HEAD_BYTES = 8;
const BODY_BYTES = 24;

/** Bytes of the extension, and of the mark behind it that ends all extensions. */
export const BITMAPS_EXTENSION_BYTES = HEAD_BYTES + BODY_BYTES;

export interface ExtensionPlaces {
  /** Where the bitmaps extension starts. */
  readonly bitmaps?: number;
  /** Where the mark stands that ends all extensions; undefined where there is no room even for it. */
  readonly end?: number;
  /** First byte that no extension may use: the name of the backing file, or the end of the cluster. */
  readonly limit: number;
}

/** @param cluster the first cluster of an image whose header has been parsed. */
export function findExtensions(cluster: Uint8Array): ExtensionPlaces {
  const view = viewOf(cluster);
  const backing = readU64(view, 8);
  const limit = backing === 0 ? cluster.length : backing;
  let bitmaps: number | undefined;
  let at = view.getUint32(4) === 2 ? V2_HEADER_BYTES : view.getUint32(100);
  while (at + HEAD_BYTES <= limit) {
    const type = view.getUint32(at);
    if (type === ExtensionType.end) return { bitmaps, end: at, limit };
    if (type === ExtensionType.bitmaps) bitmaps = at;
    at += HEAD_BYTES + Math.ceil(view.getUint32(at + 4) / 8) * 8;
  }
  return { bitmaps, limit };
}

/** Writes what the extension says, at the byte where the extension starts. Its type is left as it is. */
export function putBitmapsBody(
  cluster: Uint8Array,
  at: number,
  { count, directorySize, directoryOffset }: BitmapsExtension,
): { from: number; to: number } {
  const view = viewOf(cluster);
  const from = at + HEAD_BYTES;
  view.setUint32(from, count);
  view.setUint32(from + 4, 0);
  writeU64(view, from + 8, directorySize);
  writeU64(view, from + 16, directoryOffset);
  return { from, to: from + BODY_BYTES };
}

/** Writes the type of the extension, or the mark that ends all extensions in its place. */
export function putBitmapsHead(
  cluster: Uint8Array,
  at: number,
  present: boolean,
): { from: number; to: number } {
  const view = viewOf(cluster);
  view.setUint32(at, present ? ExtensionType.bitmaps : ExtensionType.end);
  view.setUint32(at + 4, present ? BODY_BYTES : 0);
  return { from: at, to: at + HEAD_BYTES };
}
