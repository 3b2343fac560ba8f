/** A server's messages, byte by byte, right or wrong: the tests say every field themselves. */

import {
  CHUNK_DONE,
  Chunk,
  Info,
  NBD_MAGIC,
  OPTION_MAGIC,
  Option,
  OptionReply,
} from '#dist/nbd/wire/constants.js';
import { encodeOptionReply } from '#dist/nbd/wire/option-replies.js';
import {
  CHUNK_BYTES,
  type Cookie,
  SIMPLE_REPLY_BYTES,
  writeChunkHeader,
  writeSimpleReply,
} from '#dist/nbd/wire/replies.js';

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

/** Big-endian numbers, as `[bytes, value]`. */
export function numbers(...fields: readonly (readonly [number, number | bigint])[]): Uint8Array {
  const parts = fields.map(([size, value]) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt(value));
    return bytes.subarray(8 - size);
  });
  return concat(...parts);
}

export function greeting(flags = 3): Uint8Array {
  return numbers([8, NBD_MAGIC], [8, OPTION_MAGIC], [2, flags]);
}

export function ack(option: number): Uint8Array {
  return encodeOptionReply(option, OptionReply.ack, new Uint8Array(0));
}

export function optionError(option: number, type: number, text = ''): Uint8Array {
  return encodeOptionReply(option, type, Buffer.from(text));
}

export function grantContext(id: number, name: string): Uint8Array {
  const payload = concat(numbers([4, id]), Buffer.from(name));
  return encodeOptionReply(Option.setMetaContext, OptionReply.metaContext, payload);
}

export function exportInfo(size: number | bigint, flags: number): Uint8Array {
  return goInfo(numbers([2, Info.export], [8, size], [2, flags]));
}

export function blockSizeInfo(minimum: number, preferred: number, maximum: number): Uint8Array {
  return goInfo(numbers([2, Info.blockSize], [4, minimum], [4, preferred], [4, maximum]));
}

export function goInfo(payload: Uint8Array): Uint8Array {
  return encodeOptionReply(Option.go, OptionReply.info, payload);
}

export function simpleReply(cookie: Cookie, error = 0, payload = new Uint8Array(0)): Uint8Array {
  const header = new Uint8Array(SIMPLE_REPLY_BYTES);
  writeSimpleReply(new DataView(header.buffer), 0, cookie, error);
  return concat(header, payload);
}

export type ChunkCookie = Cookie;

export interface ChunkOptions {
  /** Whether it ends the reply. Default true. */
  done?: boolean;
  /** The length that the header claims, where it is not the body's. */
  length?: number;
}

export function chunk(
  cookie: Cookie,
  type: number,
  body: Uint8Array,
  { done = true, length = body.length }: ChunkOptions = {},
): Uint8Array {
  const header = new Uint8Array(CHUNK_BYTES);
  const { cookieHigh, cookieLow } = cookie;
  const flags = done ? CHUNK_DONE : 0;
  writeChunkHeader(new DataView(header.buffer), 0, { flags, type, length, cookieHigh, cookieLow });
  return concat(header, body);
}

export function dataChunk(
  cookie: Cookie,
  offset: number,
  bytes: Uint8Array,
  options?: ChunkOptions,
): Uint8Array {
  return chunk(cookie, Chunk.offsetData, concat(numbers([8, offset]), bytes), options);
}

export function holeChunk(
  cookie: Cookie,
  offset: number,
  length: number,
  options?: ChunkOptions,
): Uint8Array {
  return chunk(cookie, Chunk.offsetHole, numbers([8, offset], [4, length]), options);
}

export function statusChunk(
  cookie: Cookie,
  context: number,
  extents: readonly (readonly [length: number, flags: number])[],
  options?: ChunkOptions,
): Uint8Array {
  const body = new DataView(new ArrayBuffer(4 + 8 * extents.length));
  body.setUint32(0, context);
  for (const [i, [length, flags]] of extents.entries()) {
    body.setUint32(4 + i * 8, length);
    body.setUint32(8 + i * 8, flags);
  }
  return chunk(cookie, Chunk.blockStatus, new Uint8Array(body.buffer), options);
}

export function errorChunk(
  cookie: Cookie,
  error: number,
  text = '',
  options?: ChunkOptions,
): Uint8Array {
  const body = concat(numbers([4, error], [2, Buffer.byteLength(text)]), Buffer.from(text));
  return chunk(cookie, Chunk.error, body, options);
}

export function doneChunk(cookie: Cookie): Uint8Array {
  return chunk(cookie, Chunk.none, new Uint8Array(0));
}
