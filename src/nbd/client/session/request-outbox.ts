import { Outbox, type Sender } from '../../stream/index.js';
import {
  EXTENDED_REQUEST_BYTES,
  REQUEST_BYTES,
  type RequestHeader,
  writeExtendedRequest,
  writeRequest,
} from '../../wire/index.js';

/** Headers are gathered in blocks of this size: 256 requests or more. */
const BLOCK_BYTES = 8 * 1024;

/** Requests on their way out, those of one turn of the event loop in one `writev`. */
export class RequestOutbox {
  readonly #outbox: Outbox;
  readonly #headerBytes: number;
  readonly #writeHeader: typeof writeRequest;

  constructor(sender: Sender, extended: boolean) {
    this.#outbox = new Outbox(sender, BLOCK_BYTES);
    this.#headerBytes = extended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES;
    this.#writeHeader = extended ? writeExtendedRequest : writeRequest;
  }

  /** Queues a request; its payload, if it has one, and the function called when Node let go of it. */
  push(request: RequestHeader, payload?: Uint8Array, sent?: () => void): void {
    const at = this.#outbox.reserve(this.#headerBytes);
    this.#writeHeader(this.#outbox.view, at, request);
    if (payload !== undefined && sent !== undefined) this.#outbox.append(payload, sent);
  }

  /** Sends what is queued; happens by itself at the end of the turn. */
  flush(): void {
    this.#outbox.flush();
  }
}
