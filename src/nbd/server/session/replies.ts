/**
 * Answers in the form that was agreed on: simple, structured, or with extended headers. A read is answered in
 * chunks wherever they were agreed on, even when it fails; other commands answer with one short message.
 */

import type { ExtentList } from '../../../extent/index.js';
import type { Outbox } from '../../stream/index.js';
import {
  CHUNK_BYTES,
  CHUNK_DONE,
  Chunk,
  type Cookie,
  DATA_HEAD_BYTES,
  Errno,
  type ErrnoName,
  EXTENDED_CHUNK_BYTES,
  type ExactOffset,
  encodeError,
  encodeExtendedStatus,
  encodeStatus,
  HOLE_BYTES,
  type RequestHeader,
  SIMPLE_REPLY_BYTES,
  writeChunkHeader,
  writeDataOffset,
  writeExactOffset,
  writeExtendedChunkHeader,
  writeHole,
  writeSimpleReply,
} from '../../wire/index.js';
import type { ServerRequest } from './request.js';

/** What of a request its answer says again. */
type Answered = Cookie & Readonly<ExactOffset> & Pick<RequestHeader, 'offset'>;

/** Whose memory counts until it is let go. */
type Held = Pick<ServerRequest, 'hold' | 'release'>;

export interface ReplyForm {
  readonly structured: boolean;
  readonly extended: boolean;
}

/** Payloads up to this are copied next to their header, which costs less than a piece of its own. */
export const SMALL_BYTES = 16 * 1024;

/** Error texts are for people, and short. */
const MAX_TEXT_BYTES = 1024;

const encoder = new TextEncoder();

export class Replies {
  readonly #outbox: Outbox;
  readonly #chunked: boolean;
  readonly #extended: boolean;
  /** The header that is being written; one object for all of them. */
  readonly #header = { flags: 0, type: 0, cookieHigh: 0, cookieLow: 0, offset: 0, length: 0 };

  constructor(outbox: Outbox, { structured, extended }: ReplyForm) {
    this.#outbox = outbox;
    this.#chunked = structured || extended;
    this.#extended = extended;
  }

  /** Success of anything but a read or a block status. */
  done(request: Answered): void {
    if (this.#extended) this.#chunk(request, Chunk.none, 0, true);
    else this.#simple(request, 0);
  }

  /** Success of a read of no bytes, which has no chunk of data: those are never empty. */
  empty(request: Answered): void {
    if (this.#chunked) this.#chunk(request, Chunk.none, 0, true);
    else this.#simple(request, 0);
  }

  fail(request: Answered, errno: ErrnoName, text: string): void {
    if (!this.#chunked) {
      this.#simple(request, Errno[errno]);
      return;
    }
    const words = encoder.encode(text).subarray(0, MAX_TEXT_BYTES);
    const body = encodeError({ error: Errno[errno], text: words });
    const at = this.#chunk(request, Chunk.error, body.length, true);
    this.#outbox.bytes.set(body, at);
  }

  /**
   * Bytes of a read, all of them or a part. `sent` is called when they may change again: at once where they were
   * copied.
   */
  data(
    request: Answered,
    piece: { bytes: Uint8Array; offset: number; last: boolean },
    sent: () => void,
  ): void {
    const { bytes, offset, last } = piece;
    const inline = bytes.length <= SMALL_BYTES ? bytes.length : 0;
    const at = this.#dataHeader(request, { offset, length: bytes.length, last }, inline);
    if (inline === 0) {
      this.#outbox.append(bytes, sent);
      return;
    }
    this.#outbox.bytes.set(bytes, at);
    sent();
  }

  /** The head of a read's answer in one piece, whose bytes follow through {@link bytes}, and nothing between them. */
  begin(request: Answered & Pick<RequestHeader, 'length'>): void {
    const { offset, length } = request;
    this.#dataHeader(request, { offset, length, last: true }, 0);
  }

  /** Bytes behind {@link begin}; `sent` is called when they may change again. */
  bytes(bytes: Uint8Array, sent: () => void): void {
    this.#outbox.append(bytes, sent);
  }

  /** A part of a read that is known to be zero. */
  hole(request: Answered, offset: number, length: number, last: boolean): void {
    const at = this.#chunk(request, Chunk.offsetHole, HOLE_BYTES, last);
    writeHole(this.#outbox.view, at, offset, length);
  }

  /** The extents of one context. */
  status(request: Answered & Held, contextId: number, list: ExtentList, last: boolean): void {
    // What it counts for is its answer.
    request.hold();
    const encode = this.#extended ? encodeExtendedStatus : encodeStatus;
    const body = encode(contextId, list);
    const type = this.#extended ? Chunk.blockStatusExtended : Chunk.blockStatus;
    this.#head(request, { type, length: body.length, last }, 0);
    this.#outbox.append(body, request.release);
  }

  /** Reserves a data chunk's header (or a simple reply's) and `inline` bytes behind it; returns where those begin. */
  #dataHeader(
    request: Answered,
    { offset, length, last }: { offset: number; length: number; last: boolean },
    inline: number,
  ): number {
    if (!this.#chunked) {
      const at = this.#outbox.reserve(SIMPLE_REPLY_BYTES + inline);
      writeSimpleReply(this.#outbox.view, at, request, 0);
      return at + SIMPLE_REPLY_BYTES;
    }
    const chunk = { type: Chunk.offsetData, length: DATA_HEAD_BYTES + length, last };
    const at = this.#head(request, chunk, DATA_HEAD_BYTES + inline);
    writeDataOffset(this.#outbox.view, at, offset);
    return at + DATA_HEAD_BYTES;
  }

  #simple(request: Answered, error: number): void {
    const at = this.#outbox.reserve(SIMPLE_REPLY_BYTES);
    writeSimpleReply(this.#outbox.view, at, request, error);
  }

  /** A chunk with its whole body reserved; returns where the body begins. */
  #chunk(request: Answered, type: number, length: number, last: boolean): number {
    return this.#head(request, { type, length, last }, length);
  }

  #head(
    request: Answered,
    { type, length, last }: { type: number; length: number; last: boolean },
    reserved: number,
  ): number {
    const header = this.#header;
    header.flags = last ? CHUNK_DONE : 0;
    header.type = type;
    header.cookieHigh = request.cookieHigh;
    header.cookieLow = request.cookieLow;
    header.offset = request.offset;
    header.length = length;
    const bytes = this.#extended ? EXTENDED_CHUNK_BYTES : CHUNK_BYTES;
    const at = this.#outbox.reserve(bytes + reserved);
    const { view } = this.#outbox;
    if (this.#extended) {
      writeExtendedChunkHeader(view, at, header);
      writeExactOffset(view, at, request);
    } else writeChunkHeader(view, at, header);
    return at + bytes;
  }
}
