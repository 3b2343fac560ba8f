import type { ExtentList } from '../../extent/index.js';
import { viewOf, writeU64 } from '../../util/index.js';
import {
  EXTENDED_EXTENT_BYTES,
  EXTENDED_STATUS_HEAD_BYTES,
  EXTENT_BYTES,
  STATUS_HEAD_BYTES,
} from '../wire/index.js';

/**
 * A block status chunk's body. No extent is longer than its request, so where lengths have 32 bits, they fit.
 */
export function encodeStatus(contextId: number, list: ExtentList, extended: boolean): Uint8Array {
  return extended ? wide(contextId, list) : compact(contextId, list);
}

function compact(contextId: number, list: ExtentList): Uint8Array {
  const bytes = new Uint8Array(STATUS_HEAD_BYTES + list.count * EXTENT_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, contextId);
  for (let i = 0, at = STATUS_HEAD_BYTES; i < list.count; i++, at += EXTENT_BYTES) {
    view.setUint32(at, list.endAt(i) - list.startAt(i));
    view.setUint32(at + 4, list.flagsAt(i));
  }
  return bytes;
}

function wide(contextId: number, list: ExtentList): Uint8Array {
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
