/**
 * Requests in both widths ("Request message", "Extended request header"). Readers fill an object that is used again
 * and again, so that a request allocates nothing.
 */
import { readU64, writeU64 } from '../../util/index.js';
import { EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC } from './constants.js';
import { type Cookie, readCookie, writeCookie } from './cookie.js';

/** A compact request: magic, flags, command, cookie, offset, length. */
export const REQUEST_BYTES = 28;
/** An extended request: the same fields, and a length of 64 bits. */
export const EXTENDED_REQUEST_BYTES = 32;

/** What a request says. Only its sender knows what the cookie means. */
export interface RequestHeader extends Cookie {
  readonly flags: number;
  readonly command: number;
  readonly offset: number;
  readonly length: number;
}

/** What of a request its reply is about. */
export type Asked = Pick<RequestHeader, 'command' | 'offset' | 'length'>;

/** A request that is read into. */
export type RequestFields = { -readonly [Key in keyof RequestHeader]: RequestHeader[Key] };

export function writeRequest(view: DataView, at: number, request: RequestHeader): void {
  view.setUint32(at, REQUEST_MAGIC);
  writeFields(view, at, request);
  view.setUint32(at + 24, request.length);
}

/** Fills `into` with the request at `at`; false where the magic is wrong and the stream is lost. */
export function readRequest(view: DataView, at: number, into: RequestFields): boolean {
  if (view.getUint32(at) !== REQUEST_MAGIC) return false;
  readFields(view, at, into);
  into.length = view.getUint32(at + 24);
  return true;
}

export function writeExtendedRequest(view: DataView, at: number, request: RequestHeader): void {
  view.setUint32(at, EXTENDED_REQUEST_MAGIC);
  writeFields(view, at, request);
  writeU64(view, at + 24, request.length);
}

/** See {@link readRequest}. */
export function readExtendedRequest(view: DataView, at: number, into: RequestFields): boolean {
  if (view.getUint32(at) !== EXTENDED_REQUEST_MAGIC) return false;
  readFields(view, at, into);
  into.length = readU64(view, at + 24);
  return true;
}

function writeFields(view: DataView, at: number, request: RequestHeader): void {
  view.setUint16(at + 4, request.flags);
  view.setUint16(at + 6, request.command);
  writeCookie(view, at, request);
  writeU64(view, at + 16, request.offset);
}

function readFields(view: DataView, at: number, into: RequestFields): void {
  into.flags = view.getUint16(at + 4);
  into.command = view.getUint16(at + 6);
  readCookie(view, at, into);
  into.offset = readU64(view, at + 16);
}

/** An offset as its eight bytes: as a number it is rounded above 2^53. */
export interface ExactOffset {
  offsetHigh: number;
  offsetLow: number;
}

/** Reads the offset of the request, or of the extended chunk header, at `at` as it came. */
export function readExactOffset(view: DataView, at: number, into: ExactOffset): void {
  into.offsetHigh = view.getUint32(at + 16);
  into.offsetLow = view.getUint32(at + 20);
}

/** Says an offset in the request, or in the extended chunk header, at `at` exactly as it came. */
export function writeExactOffset(view: DataView, at: number, offset: Readonly<ExactOffset>): void {
  view.setUint32(at + 16, offset.offsetHigh);
  view.setUint32(at + 20, offset.offsetLow);
}
