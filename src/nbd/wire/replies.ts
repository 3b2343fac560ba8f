/**
 * What replies and their chunks begin with, in all three forms ("Simple reply message", "Structured reply chunk
 * message", "Extended reply chunk message"). Readers fill an object that is used again and again, so that a reply
 * allocates nothing.
 */
import { readU64, writeU64 } from '../../util/index.js';
import { CHUNK_MAGIC, EXTENDED_CHUNK_MAGIC, SIMPLE_REPLY_MAGIC } from './constants.js';
import { type Cookie, readCookie, writeCookie } from './cookie.js';

export type { Cookie };

/** A simple reply: magic, error, cookie, and for a successful read the bytes. */
export const SIMPLE_REPLY_BYTES = 16;
/** A structured reply chunk: magic, flags, type, cookie, length, and as many bytes of body. */
export const CHUNK_BYTES = 20;
/** An extended reply chunk: the offset of its request besides, and a length of 64 bits. */
export const EXTENDED_CHUNK_BYTES = 32;

export interface ChunkHeader extends Cookie {
  readonly flags: number;
  readonly type: number;
  /** Bytes of body that follow. */
  readonly length: number;
}

export interface ExtendedChunkHeader extends ChunkHeader {
  /** The offset of the request that is answered, whatever part of it this chunk speaks of. */
  readonly offset: number;
}

/** A header of any form that is read into; what the form does not have is left as it was. */
export class ReplyFields implements ExtendedChunkHeader {
  cookieHigh = 0;
  cookieLow = 0;
  /** Of a simple reply: the error, 0 for success. */
  error = 0;
  flags = 0;
  type = 0;
  offset = 0;
  length = 0;
}

/** The magic number at `at`, which tells the form. */
export function replyMagic(view: DataView, at: number): number {
  return view.getUint32(at);
}

export function writeSimpleReply(view: DataView, at: number, cookie: Cookie, error: number): void {
  view.setUint32(at, SIMPLE_REPLY_MAGIC);
  view.setUint32(at + 4, error);
  writeCookie(view, at, cookie);
}

/** Fills `into` with the simple reply at `at`; false where the magic is another. */
export function readSimpleReply(view: DataView, at: number, into: ReplyFields): boolean {
  if (replyMagic(view, at) !== SIMPLE_REPLY_MAGIC) return false;
  into.error = view.getUint32(at + 4);
  readCookie(view, at, into);
  return true;
}

export function writeChunkHeader(view: DataView, at: number, chunk: ChunkHeader): void {
  view.setUint32(at, CHUNK_MAGIC);
  writeFields(view, at, chunk);
  view.setUint32(at + 16, chunk.length);
}

/** Fills `into` with the chunk header at `at`; false where the magic is another. */
export function readChunkHeader(view: DataView, at: number, into: ReplyFields): boolean {
  if (replyMagic(view, at) !== CHUNK_MAGIC) return false;
  readFields(view, at, into);
  into.length = view.getUint32(at + 16);
  return true;
}

export function writeExtendedChunkHeader(
  view: DataView,
  at: number,
  chunk: ExtendedChunkHeader,
): void {
  view.setUint32(at, EXTENDED_CHUNK_MAGIC);
  writeFields(view, at, chunk);
  writeU64(view, at + 16, chunk.offset);
  writeU64(view, at + 24, chunk.length);
}

/** Fills `into` with the extended chunk header at `at`; false where the magic is another. */
export function readExtendedChunkHeader(view: DataView, at: number, into: ReplyFields): boolean {
  if (replyMagic(view, at) !== EXTENDED_CHUNK_MAGIC) return false;
  readFields(view, at, into);
  into.offset = readU64(view, at + 16);
  into.length = readU64(view, at + 24);
  return true;
}

function writeFields(view: DataView, at: number, chunk: ChunkHeader): void {
  view.setUint16(at + 4, chunk.flags);
  view.setUint16(at + 6, chunk.type);
  writeCookie(view, at, chunk);
}

function readFields(view: DataView, at: number, into: ReplyFields): void {
  into.flags = view.getUint16(at + 4);
  into.type = view.getUint16(at + 6);
  readCookie(view, at, into);
}
