/**
 * Block status in both widths. A compact extent has 32 bits of length and of flags; an extended one
 * ("NBD_REPLY_TYPE_BLOCK_STATUS_EXT") 64 of each, behind a count that must fit the chunk.
 *
 * A chunk may have a million extents, and arrives in pieces, so its reader takes one number at a time.
 */
import type { ExtentList } from '../../extent/index.js';
import { readU64, viewOf, writeU64 } from '../../util/index.js';

/** The id of the context, before the extents. */
export const STATUS_HEAD_BYTES = 4;
export const EXTENT_BYTES = 8;
/** The id of the context and the count of extents. */
export const EXTENDED_STATUS_HEAD_BYTES = 8;
export const EXTENDED_EXTENT_BYTES = 16;

/** The body of a chunk. No extent is longer than its request, so where lengths have 32 bits, they fit. */
export function encodeStatus(contextId: number, list: ExtentList): Uint8Array {
  const bytes = new Uint8Array(STATUS_HEAD_BYTES + list.count * EXTENT_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, contextId);
  for (let i = 0, at = STATUS_HEAD_BYTES; i < list.count; i++, at += EXTENT_BYTES) {
    view.setUint32(at, list.endAt(i) - list.startAt(i));
    view.setUint32(at + 4, list.flagsAt(i));
  }
  return bytes;
}

export function encodeExtendedStatus(contextId: number, list: ExtentList): Uint8Array {
  const head = EXTENDED_STATUS_HEAD_BYTES;
  const bytes = new Uint8Array(head + list.count * EXTENDED_EXTENT_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, contextId);
  view.setUint32(4, list.count);
  for (let i = 0, at = head; i < list.count; i++, at += EXTENDED_EXTENT_BYTES) {
    writeU64(view, at, list.endAt(i) - list.startAt(i));
    writeU64(view, at + 8, list.flagsAt(i));
  }
  return bytes;
}

/** The id of the context, at the head of a chunk of either width. */
export function readContextId(view: DataView, at: number): number {
  return view.getUint32(at);
}

/** What the head of an extended chunk says of how many extents follow. */
export function readExtentCount(view: DataView, at: number): number {
  return view.getUint32(at + 4);
}

export function readExtentLength(view: DataView, at: number): number {
  return view.getUint32(at);
}

export function readExtentFlags(view: DataView, at: number): number {
  return view.getUint32(at + 4);
}

export function readExtendedExtentLength(view: DataView, at: number): number {
  return readU64(view, at);
}

/** All 64 bits as one number, which loses the lowest of them where the highest are set. */
export function readExtendedExtentFlags(view: DataView, at: number): number {
  return readU64(view, at + 8);
}

/** The lower 32 bits, whatever the higher ones are. */
export function readExtendedExtentLowFlags(view: DataView, at: number): number {
  return view.getUint32(at + 12);
}

/** How many extents a chunk of `length` bytes holds; undefined where none fit exactly. */
export function extentCount(length: number): number | undefined {
  return countOf(length - STATUS_HEAD_BYTES, EXTENT_BYTES);
}

/** See {@link extentCount}. */
export function extendedExtentCount(length: number): number | undefined {
  return countOf(length - EXTENDED_STATUS_HEAD_BYTES, EXTENDED_EXTENT_BYTES);
}

function countOf(bytes: number, each: number): number | undefined {
  return bytes > 0 && bytes % each === 0 ? bytes / each : undefined;
}

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
