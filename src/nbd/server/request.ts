import type { ExactOffset, RequestHeader } from '../wire/requests.js';
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
  /** What it counts for against the limit of bytes; negative until it is known. */
  cost = -1;
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

  /** Keeps the request and its memory until {@link release}. */
  hold(): void {
    this.#holds++;
  }

  /** The payload as it arrived. */
  get payload(): Uint8Array {
    return this.buffer!.subarray(0, this.payloadLength);
  }
}
