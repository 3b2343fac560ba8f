/**
 * The reply state machine: turns the server's bytes into progress of pending requests. Replies come in
 * any order, and the chunks of different replies interleave ("Structured reply message").
 *
 *     header --simple, read---> payload -> (replied)
 *            --data---> dataOffset ------> payload -> header
 *            --hole---> hole ------------> header
 *            --status-> statusHead ------> extents -> header
 *            --error--> error -----------> header
 *
 * Small replies are read many at once into an inbox and copied. While a large read is pending,
 * only a header's bytes are asked for, and then the payload straight into the target: that costs one
 * more system call for each reply and saves copying it.
 *
 * With extended headers every reply is a chunk, its header longer, its status wider; all else is the same.
 */
import { readU64 } from '../../util/index.js';
import { Inbox } from '../stream/index.js';
import {
  CHUNK_BYTES,
  CHUNK_DONE,
  CHUNK_MAGIC,
  Chunk,
  Command,
  EXTENDED_CHUNK_BYTES,
  EXTENDED_CHUNK_MAGIC,
  EXTENDED_EXTENT_BYTES,
  EXTENDED_STATUS_HEAD_BYTES,
  EXTENT_BYTES,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STATUS_HEAD_BYTES,
} from '../wire/index.js';
import { checkChunk, ERROR_FIELDS_BYTES } from './chunk-rules.js';
import { remoteError, violation } from './failures.js';
import type { PendingRequest } from './pending-request.js';
import type { RequestTable } from './request-table.js';
import { type StatusContexts, StatusReader } from './status-reader.js';

export interface ReplyEvents {
  /** The whole reply has arrived; a failure that the server told is in the request. */
  replied(request: PendingRequest): void;
  /** The socket will not write into the request's target any more, and its caller gave up. */
  memoryReturned(request: PendingRequest): void;
}

export interface ReplyRules extends StatusContexts {
  /** Whether structured replies were agreed on. */
  readonly structured: boolean;
  /** Whether extended headers were. */
  readonly extended: boolean;
}

const INBOX_BYTES = 64 * 1024;
/** A payload's rest of this size is worth a system call of its own. */
const DIRECT_BYTES = 32 * 1024;
/** The offset in a data chunk's body; so much behind a header can be asked for without touching payload. */
const DATA_OFFSET_BYTES = 8;

/** Takes what nobody wants any more. What is in it is never looked at, so all connections share it. */
const scratch = new Uint8Array(INBOX_BYTES);

const State = {
  header: 0,
  dataOffset: 1,
  payload: 2,
  hole: 3,
  statusHead: 4,
  extents: 5,
  error: 6,
} as const;

export class ReplyParser {
  readonly #table: RequestTable;
  readonly #rules: ReplyRules;
  readonly #events: ReplyEvents;
  readonly #inbox = new Inbox(INBOX_BYTES);
  readonly #status: StatusReader;
  #state: number = State.header;
  /** Bytes that the state needs at once. */
  #needed: number;
  /** The request that the current reply or chunk belongs to. */
  #request!: PendingRequest;
  /** Whether the current chunk is its reply's last. */
  #last = false;
  /** Bytes of the chunk's body, or of the payload, that are still to come. */
  #remaining = 0;
  /** Where in the request's range the payload goes on. */
  #position = 0;
  /** The buffer that was given last is payload memory, not the inbox. */
  #direct = false;

  constructor(table: RequestTable, rules: ReplyRules, events: ReplyEvents) {
    this.#table = table;
    this.#rules = rules;
    this.#events = events;
    this.#needed = this.#shortestHeader;
    this.#status = new StatusReader(rules);
  }

  /** See ByteSink. */
  buffer(): Uint8Array {
    const lean = this.#table.expectsLargeRead;
    this.#direct = this.#state === State.payload && (lean || this.#remaining >= DIRECT_BYTES);
    if (this.#direct) return this.#payloadRoom();
    return this.#inbox.room(lean ? this.#leanLimit() : INBOX_BYTES);
  }

  /** See ByteSink. */
  received(count: number): void {
    if (this.#direct) this.#payloadReceived(count);
    else this.#inbox.filled(count);
    while (this.#advance());
  }

  /** What a reply has at least. */
  get #shortestHeader(): number {
    return this.#rules.extended ? EXTENDED_CHUNK_BYTES : SIMPLE_REPLY_BYTES;
  }

  get #chunkBytes(): number {
    return this.#rules.extended ? EXTENDED_CHUNK_BYTES : CHUNK_BYTES;
  }

  /** As much as can be read without running into a payload. */
  #leanLimit(): number {
    if (this.#state === State.header && this.#rules.structured) {
      return this.#chunkBytes + DATA_OFFSET_BYTES;
    }
    return this.#state === State.extents ? this.#remaining : this.#needed;
  }

  #payloadRoom(): Uint8Array {
    const { target } = this.#request;
    if (target === undefined) return scratch.subarray(0, this.#remaining);
    this.#request.receiving = true;
    if (target.length === this.#remaining) return target;
    return target.subarray(this.#position, this.#position + this.#remaining);
  }

  #payloadReceived(count: number): void {
    const request = this.#request;
    request.receiving = false;
    if (request.giveUp) this.#events.memoryReturned(request);
    this.#skip(count);
  }

  /** One step; false when it needs more bytes. */
  #advance(): boolean {
    if (this.#state === State.payload) return this.#drainPayload();
    if (this.#inbox.length < this.#needed) return false;
    switch (this.#state) {
      case State.header:
        return this.#header();
      case State.dataOffset:
        return this.#dataOffset();
      case State.hole:
        return this.#hole();
      case State.statusHead:
        return this.#statusHead();
      case State.extents:
        return this.#extents();
      default:
        return this.#error();
    }
  }

  #enter(state: number, needed: number): true {
    this.#state = state;
    this.#needed = needed;
    return true;
  }

  #header(): boolean {
    const { view, start } = this.#inbox;
    const magic = view.getUint32(start);
    if (this.#rules.extended) {
      if (magic === EXTENDED_CHUNK_MAGIC) return this.#extendedChunk();
      throw violation(`a reply with the magic number 0x${magic.toString(16)}`);
    }
    if (magic === SIMPLE_REPLY_MAGIC) return this.#simpleReply();
    if (magic !== CHUNK_MAGIC || !this.#rules.structured) {
      throw violation(`a reply with the magic number 0x${magic.toString(16)}`);
    }
    if (this.#inbox.length < CHUNK_BYTES) {
      this.#needed = CHUNK_BYTES;
      return false;
    }
    return this.#chunk();
  }

  #simpleReply(): boolean {
    const { view } = this.#inbox;
    const at = this.#inbox.consume(SIMPLE_REPLY_BYTES);
    const error = view.getUint32(at + 4);
    const request = this.#find(at + 8);
    this.#last = true;
    if (error !== 0) request.failure ??= remoteError(request, error);
    else if (request.command === Command.read) {
      if (this.#rules.structured) throw violation('a simple reply to a read');
      return this.#payload(0, request.length);
    } else if (request.command === Command.blockStatus) {
      throw violation('a simple reply to a block status request');
    }
    return this.#endChunk();
  }

  #chunk(): boolean {
    const { view } = this.#inbox;
    const at = this.#inbox.consume(CHUNK_BYTES);
    this.#remaining = view.getUint32(at + 16);
    return this.#body(at, this.#find(at + 8));
  }

  /** "Extended reply header": it says the request's offset again, so that a mix-up is noticed. */
  #extendedChunk(): boolean {
    const { view } = this.#inbox;
    const at = this.#inbox.consume(EXTENDED_CHUNK_BYTES);
    const request = this.#find(at + 8);
    const offset = readU64(view, at + 16);
    if (offset !== request.offset) {
      throw violation(`a reply for offset ${offset} to a request for ${request.offset}`);
    }
    this.#remaining = readU64(view, at + 24);
    return this.#body(at, request);
  }

  /** What follows the header at `at`, whose length is known. */
  #body(at: number, request: PendingRequest): boolean {
    const flags = this.#inbox.view.getUint16(at + 4);
    const type = this.#inbox.view.getUint16(at + 6);
    const { extended } = this.#rules;
    this.#last = (flags & CHUNK_DONE) !== 0;
    checkChunk(request, { type, length: this.#remaining, last: this.#last, extended });
    switch (type) {
      case Chunk.none:
        return this.#endChunk();
      case Chunk.offsetData:
        return this.#enter(State.dataOffset, 8);
      case Chunk.offsetHole:
        return this.#enter(State.hole, 12);
      case Chunk.blockStatus:
        return this.#enter(State.statusHead, STATUS_HEAD_BYTES);
      case Chunk.blockStatusExtended:
        return this.#enter(State.statusHead, EXTENDED_STATUS_HEAD_BYTES);
      default:
        return this.#enter(State.error, this.#remaining);
    }
  }

  #find(cookieAt: number): PendingRequest {
    const { view } = this.#inbox;
    const high = view.getUint32(cookieAt);
    const low = view.getUint32(cookieAt + 4);
    const request = this.#table.find(high, low);
    if (request === undefined) {
      throw violation(`a reply to no request that is pending (cookie ${high}:${low})`);
    }
    this.#request = request;
    return request;
  }

  #dataOffset(): boolean {
    const offset = readU64(this.#inbox.view, this.#inbox.consume(8));
    const length = this.#remaining - 8;
    return this.#payload(this.#cover(offset, length), length);
  }

  #hole(): boolean {
    const { view } = this.#inbox;
    const at = this.#inbox.consume(12);
    const length = view.getUint32(at + 8);
    if (length === 0) throw violation('a hole of no bytes');
    const position = this.#cover(readU64(view, at), length);
    this.#request.target?.fill(0, position, position + length);
    return this.#endChunk();
  }

  /** Marks a part of a read as arrived; returns where it begins within the request. */
  #cover(offset: number, length: number): number {
    const request = this.#request;
    const position = offset - request.offset;
    if (position < 0 || position + length > request.length) {
      throw violation(`bytes at ${offset} (${length}) that the read did not ask for`);
    }
    if (!request.coverage.add(position, length)) {
      throw violation(`bytes at ${offset} (${length}) twice, or in too many pieces`);
    }
    return position;
  }

  #payload(position: number, length: number): boolean {
    this.#position = position;
    this.#remaining = length;
    return this.#enter(State.payload, 1);
  }

  /** Copies what of the payload lies in the inbox. */
  #drainPayload(): boolean {
    const inbox = this.#inbox;
    if (this.#remaining > 0) {
      const count = Math.min(inbox.length, this.#remaining);
      if (count === 0) return false;
      const at = inbox.consume(count);
      this.#request.target?.set(inbox.bytes.subarray(at, at + count), this.#position);
      this.#skip(count);
    }
    return this.#remaining === 0 && this.#endChunk();
  }

  #skip(count: number): void {
    this.#position += count;
    this.#remaining -= count;
  }

  #statusHead(): boolean {
    const { view } = this.#inbox;
    const { extended } = this.#rules;
    const headBytes = extended ? EXTENDED_STATUS_HEAD_BYTES : STATUS_HEAD_BYTES;
    const at = this.#inbox.consume(headBytes);
    this.#status.begin(this.#request, view.getUint32(at));
    this.#remaining -= headBytes;
    if (!extended) return this.#enter(State.extents, EXTENT_BYTES);
    const count = view.getUint32(at + 4);
    if (count * EXTENDED_EXTENT_BYTES !== this.#remaining) {
      throw violation(`${count} extents in ${this.#remaining} bytes`);
    }
    return this.#enter(State.extents, EXTENDED_EXTENT_BYTES);
  }

  #extents(): boolean {
    const inbox = this.#inbox;
    const count = Math.floor(Math.min(inbox.length, this.#remaining) / this.#needed);
    const at = inbox.consume(count * this.#needed);
    if (this.#rules.extended) this.#status.addExtended(inbox.view, at, count);
    else this.#status.add(inbox.view, at, count);
    this.#remaining -= count * this.#needed;
    return this.#remaining > 0 || this.#endChunk();
  }

  #error(): boolean {
    const { view, bytes } = this.#inbox;
    const length = this.#remaining;
    const at = this.#inbox.consume(length);
    const textLength = view.getUint16(at + 4);
    if (textLength > length - ERROR_FIELDS_BYTES) throw violation('an error text of wrong length');
    const textAt = at + ERROR_FIELDS_BYTES;
    const text = bytes.subarray(textAt, textAt + textLength);
    this.#request.failure ??= remoteError(this.#request, view.getUint32(at), text);
    return this.#endChunk();
  }

  #endChunk(): true {
    const request = this.#request;
    this.#enter(State.header, this.#shortestHeader);
    if (!this.#last) return true;
    const { contiguous } = request.coverage;
    const structuredRead = request.command === Command.read && this.#rules.structured;
    if (structuredRead && request.failure === undefined && contiguous !== request.length) {
      throw violation(
        `a read's reply that ended without the byte at ${request.offset + contiguous}`,
      );
    }
    this.#table.replied(request);
    this.#events.replied(request);
    return true;
  }
}
