import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import type { Capabilities, Device } from '#dist/block/index.js';
import { Random } from '#dist/testing/index.js';
import { fakeDevice } from './fake-device.js';
import { firstSeed } from './long-run.js';

const PAGE = 4096;

export interface VolatileDiskOptions {
  /** What is on it at first. */
  content: Uint8Array;
  /** A request takes up to so long. */
  delayMs?: number;
  /** What it can do, where that is not the least. */
  capabilities?: Partial<Capabilities>;
  /** By what its delays and its losses are chosen. */
  random?: Random;
  /** Called before each request; it may fail it. */
  before?(kind: VolatileRequest, offset: number, length: number): void;
}

export type VolatileRequest = 'read' | 'write' | 'zero' | 'flush';

/**
 * A disk with a cache that a power cut empties: of what was not flushed, each page is lost or not. As with files on
 * Linux, a flush that fails has lost what it was to save, and the next one knows nothing of that. It notes every
 * write, and can be served over NBD.
 */
export class VolatileDisk {
  readonly device: Device;
  /** Offsets and lengths of all writes and zeroes since somebody emptied it. */
  readonly writes: { offset: number; length: number }[] = [];
  #bytes: Uint8Array;
  readonly #durable: Uint8Array;
  /** Pages that the next flush saves. */
  #dirty = new Set<number>();
  readonly #random: Random;

  constructor(options: VolatileDiskOptions) {
    const { content, delayMs = 0, capabilities, before } = options;
    const random = options.random ?? new Random(firstSeed());
    this.#random = random;
    this.#bytes = Uint8Array.from(content);
    this.#durable = Uint8Array.from(content);
    const request = async (kind: VolatileRequest, offset = 0, length = 0) => {
      if (delayMs > 0) await sleep(random.below(delayMs));
      else await setImmediate();
      before?.(kind, offset, length);
    };
    this.device = fakeDevice(content.length, {
      capabilities: {
        ...fakeDevice(content.length).capabilities,
        knownZero: false,
        fastZero: false,
        discard: false,
        contexts: [],
        exactStatus: false,
        multiConnection: true,
        ...capabilities,
      },
      read: async (offset, target) => {
        await request('read', offset, target.length);
        target.set(this.#bytes.subarray(offset, offset + target.length));
      },
      write: async (offset, bytes) => {
        // The caller's memory is used for something else as soon as this has been answered.
        const copy = Uint8Array.from(bytes);
        await request('write', offset, copy.length);
        this.#change(offset, copy);
      },
      zero: async (offset, length) => {
        await request('zero', offset, length);
        this.#change(offset, new Uint8Array(length));
      },
      flush: async () => {
        // What is written while the cache is being emptied may be too late.
        const saved = [...this.#dirty].map((page) => [page, this.#page(page).slice()] as const);
        this.#dirty = new Set();
        await request('flush');
        for (const [page, bytes] of saved) this.#durable.set(bytes, page * PAGE);
      },
    });
  }

  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** Cuts the power: of each page that was not flushed either the old or the new content is left. */
  cutPower(): void {
    const left = Uint8Array.from(this.#durable);
    for (let page = 0; page * PAGE < left.length; page++) {
      if (this.#random.below(10) < 3) left.set(this.#page(page), page * PAGE);
    }
    this.#bytes = left;
    this.#durable.set(left);
    this.#dirty.clear();
  }

  #change(offset: number, bytes: Uint8Array): void {
    this.writes.push({ offset, length: bytes.length });
    this.#bytes.set(bytes, offset);
    for (let page = Math.floor(offset / PAGE); page * PAGE < offset + bytes.length; page++) {
      this.#dirty.add(page);
    }
  }

  #page(page: number): Uint8Array {
    return this.#bytes.subarray(page * PAGE, (page + 1) * PAGE);
  }
}
