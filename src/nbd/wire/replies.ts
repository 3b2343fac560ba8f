import { CHUNK_MAGIC, SIMPLE_REPLY_MAGIC } from './constants.js';

/** A simple reply: magic, error, cookie, and for a successful read the bytes. */
export const SIMPLE_REPLY_BYTES = 16;
/** A structured reply chunk: magic, flags, type, cookie, length, and as many bytes of body. */
export const CHUNK_BYTES = 20;

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
