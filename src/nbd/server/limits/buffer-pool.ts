/**
 * Buffers for payloads, used again and again: a fresh one costs page faults, a warm one lies in the cache. Sizes
 * are powers of two. What is idle is bounded; what is in use is bounded by the budget of all clients.
 */
export class BufferPool {
  readonly #idle = new Map<number, Uint8Array[]>();
  readonly #maxIdleBytes: number;
  #idleBytes = 0;

  constructor(maxIdleBytes = 32 * 1024 * 1024) {
    this.#maxIdleBytes = maxIdleBytes;
  }

  /** At least `length` bytes; what is in them is left over from others and must be overwritten. */
  take(length: number): Uint8Array {
    const size = bufferBytes(length);
    // The one that was given back last is the warmest.
    const buffer = this.#idle.get(size)?.pop();
    if (buffer === undefined) return Buffer.allocUnsafeSlow(size);
    this.#idleBytes -= size;
    return buffer;
  }

  free(buffer: Uint8Array): void {
    const size = buffer.length;
    if (this.#idleBytes + size > this.#maxIdleBytes) return;
    this.#idleBytes += size;
    const same = this.#idle.get(size);
    if (same === undefined) this.#idle.set(size, [buffer]);
    else same.push(buffer);
  }
}

const SMALLEST = 4096;

/** Bytes of the buffer that holds `length` bytes. */
export function bufferBytes(length: number): number {
  return length <= SMALLEST ? SMALLEST : 2 ** Math.ceil(Math.log2(length));
}
