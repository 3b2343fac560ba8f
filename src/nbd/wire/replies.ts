import { readU64, writeU64 } from '../../util/index.js';
import { CHUNK_MAGIC, EXTENDED_CHUNK_MAGIC, SIMPLE_REPLY_MAGIC } from './constants.js';
import type { ExactOffset } from './requests.js';

/** A simple reply: magic, error, cookie, and for a successful read the bytes. */
export const SIMPLE_REPLY_BYTES = 16;
/** A structured reply chunk: magic, flags, type, cookie, length, and as many bytes of body. */
export const CHUNK_BYTES = 20;
/** An extended reply chunk: the offset of its request besides, and a length of 64 bits. */
export const EXTENDED_CHUNK_BYTES = 32;

export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

export interface ChunkHeader extends Cookie {
  readonly flags: number;
  readonly type: number;
  /** Bytes of body that follow. */
  readonly length: number;
}

export function writeSimpleReply(view: DataView, at: number, cookie: Cookie, error: number): void {
  view.setUint32(at, SIMPLE_REPLY_MAGIC);
  view.setUint32(at + 4, error);
  view.setUint32(at + 8, cookie.cookieHigh);
  view.setUint32(at + 12, cookie.cookieLow);
}

export function writeChunkHeader(view: DataView, at: number, chunk: ChunkHeader): void {
  view.setUint32(at, CHUNK_MAGIC);
  view.setUint16(at + 4, chunk.flags);
  view.setUint16(at + 6, chunk.type);
  view.setUint32(at + 8, chunk.cookieHigh);
  view.setUint32(at + 12, chunk.cookieLow);
  view.setUint32(at + 16, chunk.length);
}

export interface ExtendedChunkHeader extends ChunkHeader {
  /** The offset of the request that is answered, whatever part of it this chunk speaks of. */
  readonly offset: number;
}

export function writeExtendedChunkHeader(
  view: DataView,
  at: number,
  chunk: ExtendedChunkHeader,
): void {
  view.setUint32(at, EXTENDED_CHUNK_MAGIC);
  view.setUint16(at + 4, chunk.flags);
  view.setUint16(at + 6, chunk.type);
  view.setUint32(at + 8, chunk.cookieHigh);
  view.setUint32(at + 12, chunk.cookieLow);
  writeU64(view, at + 16, chunk.offset);
  writeU64(view, at + 24, chunk.length);
}

/** Says the offset of the request in the header at `at` exactly as it came, which may be one that nobody has. */
export function echoOffset(
  view: DataView,
  at: number,
  { offsetHigh, offsetLow }: ExactOffset,
): void {
  view.setUint32(at + 16, offsetHigh);
  view.setUint32(at + 20, offsetLow);
}

/** The extended chunk header at `at`, or undefined where the magic is wrong and the stream is lost. */
export function readExtendedChunkHeader(
  view: DataView,
  at: number,
): ExtendedChunkHeader | undefined {
  if (view.getUint32(at) !== EXTENDED_CHUNK_MAGIC) return undefined;
  return {
    flags: view.getUint16(at + 4),
    type: view.getUint16(at + 6),
    cookieHigh: view.getUint32(at + 8),
    cookieLow: view.getUint32(at + 12),
    offset: readU64(view, at + 16),
    length: readU64(view, at + 24),
  };
}
