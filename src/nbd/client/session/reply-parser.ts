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
import { Inbox } from '../../stream/index.js';
import {
  CHUNK_BYTES,
  CHUNK_DONE,
  CHUNK_MAGIC,
  Chunk,
  Command,
  DATA_HEAD_BYTES,
  decodeError,
  EXTENDED_CHUNK_BYTES,
  EXTENDED_EXTENT_BYTES,
  EXTENDED_STATUS_HEAD_BYTES,
  EXTENT_BYTES,
  HOLE_BYTES,
  ReplyFields,
  readChunkHeader,
  readContextId,
  readDataOffset,
  readExtendedChunkHeader,
  readExtentCount,
  readHoleLength,
  readHoleOffset,
  readSimpleReply,
  replyMagic,
  SIMPLE_REPLY_BYTES,
  STATUS_HEAD_BYTES,
} from '../../wire/index.js';
import { remoteError, violation } from '../failures/index.js';
import { checkChunk } from './chunk-rules.js';
import type { PendingRequest } from './pending-request.js';
import type { RequestTable } from './request-table.js';
import { type StatusContexts, StatusReader } from './status-reader.js';

export interface ReplyRules extends StatusContexts {
  /** Whether structured replies were agreed on. */
  readonly structured: boolean;
  /** Whether extended headers were. */
  readonly extended: boolean;
}

/** The requests whose replies are awaited. */
export type AwaitedRequests = Pick<RequestTable, 'find' | 'expectsLargeRead'>;

const INBOX_BYTES = 64 * 1024;
/** A payload's rest of this size is worth a system call of its own. */
const DIRECT_BYTES = 32 * 1024;

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

/** How the parser goes on after a step. */
const Step = {
  /** More bytes are needed. */
  wait: 0,
  /** Go on with the next step. */
  more: 1,
  /** The current request's reply is complete. */
  replied: 2,
} as const;

export class ReplyParser {
  readonly #requests: AwaitedRequests;
  readonly #rules: ReplyRules;
  readonly #inbox = new Inbox(INBOX_BYTES);
  readonly #status: StatusReader;
  /** The header that was read last; one object for all of them. */
  readonly #header = new ReplyFields();
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

  constructor(requests: AwaitedRequests, rules: ReplyRules) {
    this.#requests = requests;
    this.#rules = rules;
    this.#needed = this.#shortestHeader;
    this.#status = new StatusReader(rules);
  }

  /** See ByteSink. */
  buffer(): Uint8Array {
    const lean = this.#requests.expectsLargeRead;
    this.#direct = this.#state === State.payload && (lean || this.#remaining >= DIRECT_BYTES);
    if (this.#direct) return this.#payloadRoom();
    return this.#inbox.room(lean ? this.#leanLimit() : INBOX_BYTES);
  }

  /**
   * Takes bytes that landed in the buffer that was given last; {@link next} says which request they have completed, if any. Returns the request
   * whose target that was, if it was one: the socket will not write there any more.
   */
  filled(count: number): PendingRequest | undefined {
    if (!this.#direct) {
      this.#inbox.filled(count);
      return undefined;
    }
    this.#skip(count);
    this.#request.receiving = false;
    return this.#request;
  }

  /**
   * The next request whose reply has arrived in full; a failure that the server told is in the request. Undefined when
   * more bytes are needed.
   *
   * @throws LacunaError ERR_NBD_PROTOCOL
   */
  next(): PendingRequest | undefined {
    for (;;) {
      const step = this.#advance();
      if (step === Step.wait) return undefined;
      if (step === Step.replied) return this.#request;
    }
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
      return this.#chunkBytes + DATA_HEAD_BYTES;
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

  #advance(): number {
    if (this.#state === State.payload) return this.#drainPayload();
    if (this.#inbox.length < this.#needed) return Step.wait;
    switch (this.#state) {
      case State.header:
        return this.#replyHeader();
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

  #enter(state: number, needed: number): number {
    this.#state = state;
    this.#needed = needed;
    return Step.more;
  }

  #replyHeader(): number {
    const { view, start } = this.#inbox;
    if (this.#rules.extended) {
      return readExtendedChunkHeader(view, start, this.#header)
        ? this.#extendedChunk()
        : this.#strange();
    }
    if (readSimpleReply(view, start, this.#header)) return this.#simpleReply();
    if (!this.#rules.structured || replyMagic(view, start) !== CHUNK_MAGIC) return this.#strange();
    if (this.#inbox.length < CHUNK_BYTES) {
      this.#needed = CHUNK_BYTES;
      return Step.wait;
    }
    readChunkHeader(view, start, this.#header);
    return this.#chunk();
  }

  #strange(): never {
    const { view, start } = this.#inbox;
    throw violation(`a reply with the magic number 0x${replyMagic(view, start).toString(16)}`);
  }

  #simpleReply(): number {
    this.#inbox.consume(SIMPLE_REPLY_BYTES);
    const { error } = this.#header;
    const request = this.#find();
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

  #chunk(): number {
    this.#inbox.consume(CHUNK_BYTES);
    return this.#body(this.#find());
  }

  /** "Extended reply header": it says the request's offset again, so that a mix-up is noticed. */
  #extendedChunk(): number {
    this.#inbox.consume(EXTENDED_CHUNK_BYTES);
    const { offset } = this.#header;
    const request = this.#find();
    if (offset !== request.offset) {
      throw violation(`a reply for offset ${offset} to a request for ${request.offset}`);
    }
    return this.#body(request);
  }

  /** What follows the header that was read last. */
  #body(request: PendingRequest): number {
    const { flags, type, length } = this.#header;
    const { extended } = this.#rules;
    this.#remaining = length;
    this.#last = (flags & CHUNK_DONE) !== 0;
    checkChunk(request, { type, length, last: this.#last, extended });
    switch (type) {
      case Chunk.none:
        return this.#endChunk();
      case Chunk.offsetData:
        return this.#enter(State.dataOffset, DATA_HEAD_BYTES);
      case Chunk.offsetHole:
        return this.#enter(State.hole, HOLE_BYTES);
      case Chunk.blockStatus:
        return this.#enter(State.statusHead, STATUS_HEAD_BYTES);
      case Chunk.blockStatusExtended:
        return this.#enter(State.statusHead, EXTENDED_STATUS_HEAD_BYTES);
      default:
        return this.#enter(State.error, length);
    }
  }

  #find(): PendingRequest {
    const { cookieHigh, cookieLow } = this.#header;
    const request = this.#requests.find(cookieHigh, cookieLow);
    if (request === undefined) {
      throw violation(`a reply to no request that is pending (cookie ${cookieHigh}:${cookieLow})`);
    }
    this.#request = request;
    return request;
  }

  #dataOffset(): number {
    const offset = readDataOffset(this.#inbox.view, this.#inbox.consume(DATA_HEAD_BYTES));
    const length = this.#remaining - DATA_HEAD_BYTES;
    return this.#payload(this.#cover(offset, length), length);
  }

  #hole(): number {
    const { view } = this.#inbox;
    const at = this.#inbox.consume(HOLE_BYTES);
    const length = readHoleLength(view, at);
    if (length === 0) throw violation('a hole of no bytes');
    const position = this.#cover(readHoleOffset(view, at), length);
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

  #payload(position: number, length: number): number {
    this.#position = position;
    this.#remaining = length;
    return this.#enter(State.payload, 1);
  }

  /** Copies what of the payload lies in the inbox. */
  #drainPayload(): number {
    const inbox = this.#inbox;
    if (this.#remaining > 0) {
      const count = Math.min(inbox.length, this.#remaining);
      if (count === 0) return Step.wait;
      const at = inbox.consume(count);
      this.#request.target?.set(inbox.bytes.subarray(at, at + count), this.#position);
      this.#skip(count);
    }
    return this.#remaining === 0 ? this.#endChunk() : Step.wait;
  }

  #skip(count: number): void {
    this.#position += count;
    this.#remaining -= count;
  }

  #statusHead(): number {
    const { view } = this.#inbox;
    const { extended } = this.#rules;
    const headBytes = extended ? EXTENDED_STATUS_HEAD_BYTES : STATUS_HEAD_BYTES;
    const at = this.#inbox.consume(headBytes);
    this.#status.begin(this.#request, readContextId(view, at));
    this.#remaining -= headBytes;
    if (!extended) return this.#enter(State.extents, EXTENT_BYTES);
    const count = readExtentCount(view, at);
    if (count * EXTENDED_EXTENT_BYTES !== this.#remaining) {
      throw violation(`${count} extents in ${this.#remaining} bytes`);
    }
    return this.#enter(State.extents, EXTENDED_EXTENT_BYTES);
  }

  #extents(): number {
    const inbox = this.#inbox;
    const count = Math.floor(Math.min(inbox.length, this.#remaining) / this.#needed);
    const at = inbox.consume(count * this.#needed);
    if (this.#rules.extended) this.#status.addExtended(inbox.view, at, count);
    else this.#status.add(inbox.view, at, count);
    this.#remaining -= count * this.#needed;
    return this.#remaining > 0 ? Step.more : this.#endChunk();
  }

  #error(): number {
    const at = this.#inbox.consume(this.#remaining);
    const told = decodeError(this.#inbox.bytes.subarray(at, at + this.#remaining));
    if (told === undefined) throw violation('an error text of wrong length');
    this.#request.failure ??= remoteError(this.#request, told.error, told.text);
    return this.#endChunk();
  }

  #endChunk(): number {
    const request = this.#request;
    this.#enter(State.header, this.#shortestHeader);
    if (!this.#last) return Step.more;
    const { contiguous } = request.coverage;
    const structuredRead = request.command === Command.read && this.#rules.structured;
    if (structuredRead && request.failure === undefined && contiguous !== request.length) {
      throw violation(
        `a read's reply that ended without the byte at ${request.offset + contiguous}`,
      );
    }
    return Step.replied;
  }
}
