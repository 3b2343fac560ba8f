import type { ExactOffset, RequestHeader } from '../../wire/index.js';
import type { Refusal } from './request-rules.js';

/** A request between its arrival and its answer. Objects are used again when the answer is sent. */
export class ServerRequest implements RequestHeader, ExactOffset {
  flags = 0;
  command = 0;
  cookieHigh = 0;
  cookieLow = 0;
  offset = 0;
  offsetHigh = 0;
  offsetLow = 0;
  length = 0;
  /** Bytes of payload that follow the header. */
  payloadLength = 0;
  /** Memory of the pool, larger than what is in it; undefined where the payload is dropped. */
  buffer: Uint8Array | undefined;
  /** Where in the payload the buffer begins, which may be shorter than the payload. */
  bufferStart = 0;
  /** What it counts for against the connection's limit of bytes; negative until it is known. */
  cost = -1;
  /** What it holds of the memory of all clients. */
  memory = 0;
  /** There is no memory for all of it at once: it is carried out in pieces of the buffer's size. */
  inPieces = false;
  /** The most extents of each context that its answer has memory for. */
  maxExtents = 0;
  /** Its answer has begun, and cannot become an error any more. */
  answering = false;
  /** Why a piece of it failed. */
  failure: unknown;
  /** What lies in its buffer is being written, or was. */
  emptying = false;
  emptied = false;
  /** Why it will not be carried out. */
  refusal: Refusal | undefined;
  /** Lets go of its memory once; one function for the object's whole life. */
  readonly release: () => void;
  #holds = 0;

  /** @param free called when nobody holds the request's memory any more */
  constructor(free: (request: ServerRequest) => void) {
    this.release = () => {
      this.#holds--;
      if (this.#holds === 0) free(this);
    };
  }

  /** Makes it ready for the next use. */
  reset(): void {
    this.buffer = undefined;
    this.bufferStart = 0;
    this.cost = -1;
    this.inPieces = false;
    this.answering = false;
    this.failure = undefined;
    this.emptied = false;
  }

  /** Keeps the request and its memory until {@link release}. */
  hold(): void {
    this.#holds++;
  }

  /** What of the payload lies in the buffer, once that is full or the payload complete. */
  get payload(): Uint8Array {
    const buffer = this.buffer!;
    return buffer.subarray(0, Math.min(buffer.length, this.payloadLength - this.bufferStart));
  }
}
