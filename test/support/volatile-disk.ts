import { setTimeout as sleep } from 'node:timers/promises';
import type { Device } from '#dist/block/index.js';
import { fakeDevice } from './fake-device.js';

const PAGE = 4096;

export interface VolatileDiskOptions {
  /** What is on it at first. */
  content: Uint8Array;
  /** A request takes up to so long. */
  delayMs?: number;
}

/**
 * A disk with a cache that a power cut empties: what was not flushed is lost, page by page or not. It notes every
 * write, and can be served over NBD.
 */
export class VolatileDisk {
  readonly device: Device;
  /** Offsets and lengths of all writes and zeroes since somebody emptied it. */
  readonly writes: { offset: number; length: number }[] = [];
  #bytes: Uint8Array;
  #durable: Uint8Array;

  constructor({ content, delayMs = 0 }: VolatileDiskOptions) {
    this.#bytes = Uint8Array.from(content);
    this.#durable = Uint8Array.from(content);
    const wait = () => sleep(Math.random() * delayMs);
    const { capabilities } = fakeDevice(content.length);
    this.device = fakeDevice(content.length, {
      capabilities: {
        ...capabilities,
        knownZero: false,
        fastZero: false,
        discard: false,
        contexts: [],
        exactStatus: false,
        multiConnection: true,
      },
      read: async (offset, target) => {
        await wait();
        target.set(this.#bytes.subarray(offset, offset + target.length));
      },
      write: async (offset, bytes) => {
        // The caller's memory is used for something else as soon as this has been answered.
        const copy = Uint8Array.from(bytes);
        await wait();
        this.writes.push({ offset, length: copy.length });
        this.#bytes.set(copy, offset);
      },
      zero: async (offset, length) => {
        await wait();
        this.writes.push({ offset, length });
        this.#bytes.fill(0, offset, offset + length);
      },
      flush: async () => {
        // What is written while the cache is being emptied may be too late.
        const covered = Uint8Array.from(this.#bytes);
        await wait();
        this.#durable = covered;
      },
    });
  }

  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** Cuts the power: of each page that was not flushed either the old or the new content is left. */
  cutPower(): void {
    const left = Uint8Array.from(this.#durable);
    for (let at = 0; at < left.length; at += PAGE) {
      if (Math.random() < 0.3) left.set(this.#bytes.subarray(at, at + PAGE), at);
    }
    this.#bytes = left;
    this.#durable = Uint8Array.from(left);
  }
}
