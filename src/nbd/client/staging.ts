/**
 * A small buffer between the socket and the parser: bytes that have arrived and were not yet understood.
 *
 *     0 ... start [ unread ] end ... capacity
 */
export class Staging {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  #start = 0;
  #end = 0;

  constructor(capacity: number) {
    this.bytes = new Uint8Array(capacity);
    this.view = new DataView(this.bytes.buffer);
  }

  /** Where the unread bytes begin. */
  get start(): number {
    return this.#start;
  }

  get length(): number {
    return this.#end - this.#start;
  }

  /** `count` more bytes have landed in what {@link room} gave. */
  filled(count: number): void {
    this.#end += count;
  }

  /** Drops `count` bytes that are understood; returns where they began. */
  consume(count: number): number {
    const at = this.#start;
    this.#start += count;
    if (this.#start === this.#end) {
      this.#start = 0;
      this.#end = 0;
    }
    return at;
  }

  /** Free memory behind the unread bytes, so that they can grow to `wanted`, and at most to `limit`. */
  room(wanted: number, limit: number): Uint8Array {
    if (this.bytes.length - this.#start < wanted) {
      this.bytes.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    return this.bytes.subarray(this.#end, Math.min(this.bytes.length, this.#start + limit));
  }
}
