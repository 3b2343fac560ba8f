import { EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC } from './constants.js';
import { readU64, writeU64 } from './u64.js';

/** A compact request: magic, flags, command, cookie, offset, length ("Request message"). */
export const REQUEST_BYTES = 28;
/** An extended request: the same fields, and a length of 64 bits. */
export const EXTENDED_REQUEST_BYTES = 32;

/** What a request says. The cookie comes back with the reply; only its sender knows what it means. */
export interface RequestHeader {
  readonly flags: number;
  readonly command: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offset: number;
  readonly length: number;
}

export function writeRequest(view: DataView, at: number, request: RequestHeader): void {
  view.setUint32(at, REQUEST_MAGIC);
  view.setUint16(at + 4, request.flags);
  view.setUint16(at + 6, request.command);
  view.setUint32(at + 8, request.cookieHigh);
  view.setUint32(at + 12, request.cookieLow);
  writeU64(view, at + 16, request.offset);
  view.setUint32(at + 24, request.length);
}

/** The request at `at`, or undefined where the magic is wrong and the stream is lost. */
export function readRequest(view: DataView, at: number): RequestHeader | undefined {
  if (view.getUint32(at) !== REQUEST_MAGIC) return undefined;
  return {
    flags: view.getUint16(at + 4),
    command: view.getUint16(at + 6),
    cookieHigh: view.getUint32(at + 8),
    cookieLow: view.getUint32(at + 12),
    offset: readU64(view, at + 16),
    length: view.getUint32(at + 24),
  };
}

export function writeExtendedRequest(view: DataView, at: number, request: RequestHeader): void {
  writeRequest(view, at, request);
  view.setUint32(at, EXTENDED_REQUEST_MAGIC);
  writeU64(view, at + 24, request.length);
}

/** The extended request at `at`, or undefined where the magic is wrong and the stream is lost. */
export function readExtendedRequest(view: DataView, at: number): RequestHeader | undefined {
  if (view.getUint32(at) !== EXTENDED_REQUEST_MAGIC) return undefined;
  return {
    flags: view.getUint16(at + 4),
    command: view.getUint16(at + 6),
    cookieHigh: view.getUint32(at + 8),
    cookieLow: view.getUint32(at + 12),
    offset: readU64(view, at + 16),
    length: readU64(view, at + 24),
  };
}
