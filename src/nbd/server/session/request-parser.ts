/**
 * The request state machine: turns the client's bytes into requests.
 *
 *     header --admitted--> payload -> (arrived) -> header
 *            --no room---> stalled, until `advance`
 *
 * A payload for which there is no memory at once fills its buffer again and again; in between it is stalled, too.
 *
 * Headers are read many at once into the inbox. The payload of a write is received straight into its buffer,
 * and behind a large one only a header's bytes are asked for, since another such write is likely.
 */

import { Inbox } from '../../stream/index.js';
import {
  Command,
  CommandFlag,
  EXTENDED_REQUEST_BYTES,
  REQUEST_BYTES,
  readExactOffset,
  readExtendedRequest,
  readRequest,
} from '../../wire/index.js';
import { violation } from '../failures/index.js';
import type { ServerRequest } from './request.js';

export interface RequestHandler {
  /** An object for the next request. */
  blank(): ServerRequest;
  /** Whether there is room for it now. Where there is, `buffer` is set if the payload is wanted. */
  admit(request: ServerRequest): boolean;
  /** The buffer is full and the payload goes on. Whether the buffer is free again; else `advance` asks anew. */
  emptied(request: ServerRequest): boolean;
  /** The request is complete. */
  arrived(request: ServerRequest): void;
}

const INBOX_BYTES = 64 * 1024;
/** Behind a payload of this size, the next is waited for with a system call of its own. */
const LARGE_BYTES = 32 * 1024;
/** Payloads that are not wanted are read all the same, up to this: no client means to send more. */
const LONGEST_PAYLOAD = 128 * 1024 * 1024;

/** Takes what nobody wants. What is in it is never looked at, so all connections share it. */
const scratch = new Uint8Array(INBOX_BYTES);

export class RequestParser {
  readonly #handler: RequestHandler;
  readonly #extended: boolean;
  readonly #headerBytes: number;
  readonly #inbox = new Inbox(INBOX_BYTES);
  /** Its header is read and it waits to be admitted, or for its payload. */
  #request: ServerRequest | undefined;
  #stalled = false;
  /** Where the payload goes on. */
  #position = 0;
  #lean = false;
  /** The buffer that was given last is the payload's, not the inbox. */
  #direct = false;
  #stopped = false;

  constructor(handler: RequestHandler, extended: boolean) {
    this.#handler = handler;
    this.#extended = extended;
    this.#headerBytes = extended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES;
  }

  /** A request waits for room; nothing more should be read from the socket. */
  get stalled(): boolean {
    return this.#stalled;
  }

  /** A request was admitted and its payload is still to come. */
  get receiving(): boolean {
    return this.#request !== undefined && this.#position >= 0;
  }

  /** See ByteSink. */
  buffer(): Uint8Array {
    const request = this.#stalled ? undefined : this.#request;
    this.#direct = request !== undefined;
    if (request === undefined)
      return this.#inbox.room(this.#lean ? this.#headerBytes : INBOX_BYTES);
    const left = request.payloadLength - this.#position;
    if (request.buffer === undefined) return scratch.subarray(0, Math.min(left, scratch.length));
    const { buffer, bufferStart, payloadLength } = request;
    return buffer.subarray(this.#position - bufferStart, payloadLength - bufferStart);
  }

  /** See ByteSink. */
  received(count: number): void {
    if (this.#direct) this.#position += count;
    else this.#inbox.filled(count);
    this.advance();
  }

  /** Goes on with what has arrived, until a request is not admitted or more bytes are needed. */
  advance(): void {
    this.#stalled = false;
    while (!this.#stopped && (this.#request === undefined ? this.#header() : this.#payload()));
  }

  /** Nothing that comes now is a request. */
  stop(): void {
    this.#stopped = true;
  }

  /** Nothing comes any more. The request whose payload is not complete, if it was admitted. */
  end(): ServerRequest | undefined {
    this.stop();
    const request = this.receiving ? this.#request : undefined;
    this.#request = undefined;
    this.#stalled = false;
    return request;
  }

  #header(): boolean {
    const inbox = this.#inbox;
    if (inbox.length < this.#headerBytes) return false;
    const request = this.#handler.blank();
    const read = this.#extended ? readExtendedRequest : readRequest;
    if (!read(inbox.view, inbox.start, request))
      throw violation('a request without its magic number');
    if (this.#extended) readExactOffset(inbox.view, inbox.start, request);
    inbox.consume(this.#headerBytes);
    request.payloadLength = payloadLength(request, this.#extended);
    if (request.payloadLength > LONGEST_PAYLOAD) {
      throw violation(`a payload of ${request.payloadLength} bytes`);
    }
    this.#request = request;
    this.#position = -1;
    return true;
  }

  /** Also the way of requests without one: they wait to be admitted all the same. */
  #payload(): boolean {
    const request = this.#request!;
    if (this.#position < 0) {
      if (!this.#handler.admit(request)) {
        this.#stalled = true;
        return false;
      }
      this.#position = 0;
    }
    const wanted = request.payloadLength - this.#position;
    if (wanted > 0) this.#copyStaged(request, wanted);
    if (this.#position < request.payloadLength)
      return this.#isFull(request) && this.#empty(request);
    this.#lean = request.payloadLength >= LARGE_BYTES;
    this.#request = undefined;
    this.#handler.arrived(request);
    return true;
  }

  #isFull({ buffer, bufferStart }: ServerRequest): boolean {
    return buffer !== undefined && this.#position - bufferStart === buffer.length;
  }

  #empty(request: ServerRequest): boolean {
    if (!this.#handler.emptied(request)) {
      this.#stalled = true;
      return false;
    }
    request.bufferStart = this.#position;
    return true;
  }

  #copyStaged(request: ServerRequest, wanted: number): void {
    const inbox = this.#inbox;
    const { buffer, bufferStart } = request;
    const position = this.#position - bufferStart;
    const room = buffer === undefined ? wanted : buffer.length - position;
    const count = Math.min(inbox.length, wanted, room);
    if (count === 0) return;
    const at = inbox.consume(count);
    buffer?.set(inbox.bytes.subarray(at, at + count), position);
    this.#position += count;
  }
}

/**
 * A write always has a payload; with extended headers any request has one that says so ("Extended headers": the
 * server must read what it does not understand, to stay in step).
 */
function payloadLength(
  { command, flags, length }: Pick<ServerRequest, 'command' | 'flags' | 'length'>,
  extended: boolean,
): number {
  if (command === Command.write) return length;
  return extended && (flags & CommandFlag.payloadLength) !== 0 ? length : 0;
}
