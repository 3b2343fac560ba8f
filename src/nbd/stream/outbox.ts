/** The sending half of a socket, as much of it as is needed. */
export interface Sender {
  cork(): void;
  uncork(): void;
  write(bytes: Uint8Array, sent: () => void): unknown;
}

class Block {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Bytes up to here are written. */
  end = 0;
  /** Bytes up to here were given to the socket. */
  sent = 0;
  /** Pieces that the socket still holds. */
  held = 0;

  constructor(size: number) {
    this.bytes = Buffer.allocUnsafeSlow(size);
    this.view = new DataView(this.bytes.buffer);
  }
}

/**
 * What is to be sent. All of one turn of the event loop leaves in one `writev`: headers and small payloads
 * lie side by side in a block, large payloads stand between them where they belong. A block is used
 * again when the socket has let go of its last piece; writing to it earlier would change what is sent.
 */
export class Outbox {
  readonly #sender: Sender;
  readonly #onSent: () => void;
  readonly #spare: Block[] = [];
  readonly #flush = () => this.flush();
  readonly #blockBytes: number;
  #block: Block;
  #corked = false;
  #unsent = 0;
  #unsentSmall = 0;

  /**
   * @param blockBytes bytes of a block
   * @param onSent called whenever the socket has taken something
   */
  constructor(sender: Sender, blockBytes: number, onSent: () => void = nothing) {
    this.#sender = sender;
    this.#blockBytes = blockBytes;
    this.#block = new Block(blockBytes);
    this.#onSent = onSent;
  }

  /** Bytes that were queued and that the socket has not taken. */
  get unsent(): number {
    return this.#unsent;
  }

  /** Those of them that lie in blocks, the outbox's own memory. */
  get unsentSmall(): number {
    return this.#unsentSmall;
  }

  /** Memory of the current block, for {@link reserve}'s answer. */
  get view(): DataView {
    return this.#block.view;
  }

  get bytes(): Uint8Array {
    return this.#block.bytes;
  }

  /** Makes room for `count` bytes, at most those of a block, which the caller writes at once. */
  reserve(count: number): number {
    this.#cork();
    if (this.#block.end + count > this.#blockBytes) this.#nextBlock();
    const at = this.#block.end;
    this.#block.end += count;
    this.#unsent += count;
    this.#unsentSmall += count;
    return at;
  }

  /** Queues memory that must not change until `sent` is called. */
  append(payload: Uint8Array, sent: () => void): void {
    this.#cork();
    this.#sendBlock();
    this.#unsent += payload.length;
    this.#sender.write(payload, () => {
      this.#unsent -= payload.length;
      sent();
      this.#onSent();
    });
  }

  /** Sends what is queued; happens by itself at the end of the turn. */
  flush(): void {
    if (!this.#corked) return;
    this.#sendBlock();
    this.#corked = false;
    this.#sender.uncork();
  }

  #cork(): void {
    if (this.#corked) return;
    this.#corked = true;
    this.#sender.cork();
    process.nextTick(this.#flush);
  }

  #sendBlock(): void {
    const block = this.#block;
    if (block.sent === block.end) return;
    const piece = block.bytes.subarray(block.sent, block.end);
    block.sent = block.end;
    block.held++;
    this.#sender.write(piece, () => {
      block.held--;
      this.#unsent -= piece.length;
      this.#unsentSmall -= piece.length;
      this.#reuse(block);
      this.#onSent();
    });
  }

  #nextBlock(): void {
    this.#sendBlock();
    const full = this.#block;
    this.#block = this.#spare.pop() ?? new Block(this.#blockBytes);
    this.#reuse(full);
  }

  #reuse(block: Block): void {
    if (block.held > 0 || block.sent < block.end) return;
    block.end = 0;
    block.sent = 0;
    if (block !== this.#block) this.#spare.push(block);
  }
}

function nothing(): void {}
