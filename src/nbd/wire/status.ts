/**
 * Block status in both widths. A compact extent has 32 bits of length and of flags; an extended one
 * ("NBD_REPLY_TYPE_BLOCK_STATUS_EXT") 64 of each, behind a count that must fit the chunk.
 */

import { readU64, viewOf, writeU64 } from '../../util/index.js';

/** The id of the context, before the extents. */
export const STATUS_HEAD_BYTES = 4;
export const EXTENT_BYTES = 8;
/** The id of the context and the count of extents. */
export const EXTENDED_STATUS_HEAD_BYTES = 8;
export const EXTENDED_EXTENT_BYTES = 16;

/** The payload of a block status request: how many bytes it asks about, and in which contexts. */
export interface StatusPayload {
  readonly effectLength: number;
  readonly contextIds: readonly number[];
}

/** "NBD_FLAG_BLOCK_STATUS_PAYLOAD": a u64 length, then the ids, 32 bits each. */
export function encodeStatusPayload({ effectLength, contextIds }: StatusPayload): Uint8Array {
  const bytes = new Uint8Array(8 + 4 * contextIds.length);
  const view = viewOf(bytes);
  writeU64(view, 0, effectLength);
  for (const [i, id] of contextIds.entries()) view.setUint32(8 + 4 * i, id);
  return bytes;
}

/** The payload, or undefined where its length is that of no whole number of ids. */
export function decodeStatusPayload(bytes: Uint8Array): StatusPayload | undefined {
  if (bytes.length < 8 || bytes.length % 4 !== 0) return undefined;
  const view = viewOf(bytes);
  const contextIds: number[] = [];
  for (let at = 8; at < bytes.length; at += 4) contextIds.push(view.getUint32(at));
  return { effectLength: readU64(view, 0), contextIds };
}

/** How many extents an extended status chunk of `length` bytes holds; undefined where none fit exactly. */
export function extendedExtentCount(length: number): number | undefined {
  const rest = length - EXTENDED_STATUS_HEAD_BYTES;
  return rest > 0 && rest % EXTENDED_EXTENT_BYTES === 0 ? rest / EXTENDED_EXTENT_BYTES : undefined;
}
