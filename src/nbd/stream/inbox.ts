/**
 * Bytes that have arrived and were not yet understood.
 *
 *     0 ... start [ unread ] end ... capacity
 *
 * The socket asks for room in advance, and keeps it while it is paused; in the meantime unread bytes may be
 * consumed, but only asking for room moves them, so that the room stays where the next bytes belong.
 */
export class Inbox {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly #limit: number;
  #start = 0;
  #end = 0;

  constructor(limit: number) {
    this.#limit = limit;
    // Even when it is full there is room, since a socket must never be given an empty buffer.
    this.bytes = new Uint8Array(limit + SPARE_BYTES);
    this.view = new DataView(this.bytes.buffer);
  }

  get start(): number {
    return this.#start;
  }

  get length(): number {
    return this.#end - this.#start;
  }

  /** `count` more bytes have landed in the room that was given last. */
  filled(count: number): void {
    this.#end += count;
  }

  /** Drops `count` bytes that are understood; returns where they began. */
  consume(count: number): number {
    const at = this.#start;
    this.#start += count;
    return at;
  }

  /** Free memory behind the unread bytes: so much that they grow to `most` bytes, and never nothing. */
  room(most: number): Uint8Array {
    const length = this.length;
    if (length === 0) {
      this.#start = 0;
      this.#end = 0;
    } else if (this.#end > this.#limit || this.#start + most > this.bytes.length) {
      this.bytes.copyWithin(0, this.#start, this.#end);
      this.#start = 0;
      this.#end = length;
    }
    const wanted = Math.max(most - length, 1);
    return this.bytes.subarray(this.#end, Math.min(this.#end + wanted, this.bytes.length));
  }
}

const SPARE_BYTES = 1024;
