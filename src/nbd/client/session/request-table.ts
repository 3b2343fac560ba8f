import { Command } from '../../wire/index.js';
import { PendingRequest } from './pending-request.js';

/**
 * From here on a reply's payload is received straight into its target: see ReplyParser. Measured with
 * targets in shared memory, whose copies are slow in V8: 32 KiB reads gain half, 16 KiB lose a third.
 */
const LARGE_READ_BYTES = 32 * 1024;

/** The slots of a connection's requests; a cookie is a slot's index and how often it was used. */
export class RequestTable implements Iterable<PendingRequest> {
  readonly #slots: PendingRequest[] = [];
  readonly #free: PendingRequest[] = [];
  #largeReads = 0;

  /** Slots in use. */
  get count(): number {
    return this.#slots.length - this.#free.length;
  }

  /** Whether a reply is awaited that is worth being received straight into its target. */
  get expectsLargeRead(): boolean {
    return this.#largeReads > 0;
  }

  /** A free slot; undefined where all are in use. */
  take(): PendingRequest | undefined {
    return this.#free.pop();
  }

  /** One slot more, to be used at once. */
  grow(): PendingRequest {
    const slot = new PendingRequest(this.#slots.length);
    this.#slots.push(slot);
    return slot;
  }

  /** Counts a request that has begun, until {@link replied}. */
  sent(request: PendingRequest): void {
    if (isLargeRead(request)) this.#largeReads++;
  }

  replied(request: PendingRequest): void {
    if (isLargeRead(request)) this.#largeReads--;
    request.replied = true;
  }

  free(request: PendingRequest): void {
    this.#free.push(request);
  }

  /** The request that waits for a reply with this cookie. */
  find(cookieHigh: number, cookieLow: number): PendingRequest | undefined {
    if (cookieLow >= this.#slots.length) return undefined;
    const slot = this.#slots[cookieLow];
    return slot.cookieHigh === cookieHigh && !slot.replied ? slot : undefined;
  }

  /** All slots, used or not; those in use are `active`. */
  [Symbol.iterator](): Iterator<PendingRequest> {
    return this.#slots[Symbol.iterator]();
  }
}

function isLargeRead(request: PendingRequest): boolean {
  return request.command === Command.read && request.length >= LARGE_READ_BYTES;
}
