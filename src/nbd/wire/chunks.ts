/** Bodies of the chunks that answer reads and tell errors ("Structured reply types"). Those of status: status.ts. */
import { readU64, viewOf, writeU64 } from '../../util/index.js';

/** Before the bytes of a data chunk: where they belong. */
export const DATA_HEAD_BYTES = 8;
/** The whole body of a hole: where it begins, and its length. */
export const HOLE_BYTES = 12;
/** Before the text of an error chunk: the error, and the length of the text. */
export const ERROR_HEAD_BYTES = 6;

export function writeDataOffset(view: DataView, at: number, offset: number): void {
  writeU64(view, at, offset);
}

export function readDataOffset(view: DataView, at: number): number {
  return readU64(view, at);
}

export function writeHole(view: DataView, at: number, offset: number, length: number): void {
  writeU64(view, at, offset);
  view.setUint32(at + 8, length);
}

export function readHoleOffset(view: DataView, at: number): number {
  return readU64(view, at);
}

export function readHoleLength(view: DataView, at: number): number {
  return view.getUint32(at + 8);
}

/** What a server says of a request that failed. */
export interface ErrorBody {
  /** One of the wire's error values. */
  readonly error: number;
  /** For people; may be cut anywhere. */
  readonly text: Uint8Array;
}

export function encodeError({ error, text }: ErrorBody): Uint8Array {
  const bytes = new Uint8Array(ERROR_HEAD_BYTES + text.length);
  const view = viewOf(bytes);
  view.setUint32(0, error);
  view.setUint16(4, text.length);
  bytes.set(text, ERROR_HEAD_BYTES);
  return bytes;
}

/**
 * The error, whose text is a view of `body`; undefined where the text is longer than the body. What stands behind the
 * text, such as an offset, is passed over.
 */
export function decodeError(body: Uint8Array): ErrorBody | undefined {
  if (body.length < ERROR_HEAD_BYTES) return undefined;
  const view = viewOf(body);
  const end = ERROR_HEAD_BYTES + view.getUint16(4);
  if (end > body.length) return undefined;
  return { error: view.getUint32(0), text: body.subarray(ERROR_HEAD_BYTES, end) };
}
