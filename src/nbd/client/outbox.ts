import {
  EXTENDED_REQUEST_BYTES,
  REQUEST_BYTES,
  type RequestHeader,
  writeExtendedRequest,
  writeRequest,
} from '../wire/requests.js';

/** The sending half of a socket, as much of it as is needed. */
export interface Sender {
  cork(): void;
  uncork(): void;
  write(bytes: Uint8Array, sent: (error?: Error | null) => void): unknown;
}

/** Headers are gathered in blocks of this size: 256 requests or more. */
const BLOCK_BYTES = 8 * 1024;

class Block {
  readonly bytes = new Uint8Array(BLOCK_BYTES);
  readonly view = new DataView(this.bytes.buffer);
  /** Headers up to here are written. */
  end = 0;
  /** Headers up to here were given to the socket. */
  sent = 0;
  /** Pieces that the socket still holds. */
  held = 0;
}

/**
 * What is to be sent. All requests of one turn of the event loop leave in one `writev`: their headers
 * lie side by side in a block, and payloads stand between them where they belong. A block is used
 * again when the socket has let go of its last piece; writing to it earlier would change what is sent.
 */
export class Outbox {
  readonly #sender: Sender;
  readonly #spare: Block[] = [];
  readonly #flush = () => this.flush();
  readonly #headerBytes: number;
  readonly #writeHeader: typeof writeRequest;
  #block = new Block();
  #corked = false;

  constructor(sender: Sender, extended: boolean) {
    this.#sender = sender;
    this.#headerBytes = extended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES;
    this.#writeHeader = extended ? writeExtendedRequest : writeRequest;
  }

  /** Queues a request; its payload, if it has one, and the function called when Node let go of it. */
  push(request: RequestHeader, payload?: Uint8Array, sent?: () => void): void {
    this.#cork();
    if (this.#block.end + this.#headerBytes > BLOCK_BYTES) this.#nextBlock();
    this.#writeHeader(this.#block.view, this.#block.end, request);
    this.#block.end += this.#headerBytes;
    if (payload === undefined || sent === undefined) return;
    this.#sendHeaders();
    this.#sender.write(payload, sent);
  }

  /** Sends what is queued; happens by itself at the end of the turn. */
  flush(): void {
    if (!this.#corked) return;
    this.#sendHeaders();
    this.#corked = false;
    this.#sender.uncork();
  }

  #cork(): void {
    if (this.#corked) return;
    this.#corked = true;
    this.#sender.cork();
    process.nextTick(this.#flush);
  }

  #sendHeaders(): void {
    const block = this.#block;
    if (block.sent === block.end) return;
    const piece = block.bytes.subarray(block.sent, block.end);
    block.sent = block.end;
    block.held++;
    this.#sender.write(piece, () => {
      block.held--;
      this.#reuse(block);
    });
  }

  #nextBlock(): void {
    this.#sendHeaders();
    const full = this.#block;
    this.#block = this.#spare.pop() ?? new Block();
    this.#reuse(full);
  }

  #reuse(block: Block): void {
    if (block.held > 0 || block.sent < block.end) return;
    block.end = 0;
    block.sent = 0;
    if (block !== this.#block) this.#spare.push(block);
  }
}
