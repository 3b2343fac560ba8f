import { readU64, writeU64 } from '../../util/index.js';
import { EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC } from './constants.js';

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

export type MutableRequest = { -readonly [Key in keyof RequestHeader]: RequestHeader[Key] };

export function writeRequest(view: DataView, at: number, request: RequestHeader): void {
  view.setUint32(at, REQUEST_MAGIC);
  view.setUint16(at + 4, request.flags);
  view.setUint16(at + 6, request.command);
  view.setUint32(at + 8, request.cookieHigh);
  view.setUint32(at + 12, request.cookieLow);
  writeU64(view, at + 16, request.offset);
  view.setUint32(at + 24, request.length);
}

export function writeExtendedRequest(view: DataView, at: number, request: RequestHeader): void {
  writeRequest(view, at, request);
  view.setUint32(at, EXTENDED_REQUEST_MAGIC);
  writeU64(view, at + 24, request.length);
}

/** The request at `at`, or undefined where the magic is wrong and the stream is lost. */
export function readRequest(view: DataView, at: number): RequestHeader | undefined {
  const request = blank();
  return parseRequest(view, at, request) ? request : undefined;
}

/** The extended request at `at`, or undefined where the magic is wrong and the stream is lost. */
export function readExtendedRequest(view: DataView, at: number): RequestHeader | undefined {
  const request = blank();
  return parseExtendedRequest(view, at, request) ? request : undefined;
}

/** Reads into an object that is used again and again; false where the magic is wrong. */
export function parseRequest(view: DataView, at: number, into: MutableRequest): boolean {
  if (view.getUint32(at) !== REQUEST_MAGIC) return false;
  parseFields(view, at, into);
  into.length = view.getUint32(at + 24);
  return true;
}

/** See {@link parseRequest}. */
export function parseExtendedRequest(view: DataView, at: number, into: MutableRequest): boolean {
  if (view.getUint32(at) !== EXTENDED_REQUEST_MAGIC) return false;
  parseFields(view, at, into);
  into.length = readU64(view, at + 24);
  return true;
}

/** An offset as its eight bytes: as a number it is rounded above 2^53. */
export interface ExactOffset {
  offsetHigh: number;
  offsetLow: number;
}

/** Reads the offset of the request at `at` as it came. */
export function parseExactOffset(view: DataView, at: number, into: ExactOffset): void {
  into.offsetHigh = view.getUint32(at + 16);
  into.offsetLow = view.getUint32(at + 20);
}

function parseFields(view: DataView, at: number, into: MutableRequest): void {
  into.flags = view.getUint16(at + 4);
  into.command = view.getUint16(at + 6);
  into.cookieHigh = view.getUint32(at + 8);
  into.cookieLow = view.getUint32(at + 12);
  into.offset = readU64(view, at + 16);
}

function blank(): MutableRequest {
  return { flags: 0, command: 0, cookieHigh: 0, cookieLow: 0, offset: 0, length: 0 };
}
