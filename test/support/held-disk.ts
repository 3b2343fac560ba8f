import { setImmediate } from 'node:timers/promises';
import type { BlockDevice } from '#dist/block/index.js';
import { LacunaError } from '#dist/errors/index.js';

/** A request of a {@link HeldDisk} that waits for the test. */
export interface Held {
  readonly what: 'read' | 'write' | 'zero' | 'discard' | 'flush';
  release(): void;
  /** Fails it, having carried it out or not. */
  fail(landed: boolean): void;
}

/**
 * A disk whose requests wait for the test, with nothing between it and its caller: for tests that play tens of thousands of orders.
 * `ManualDisk` is the same behind a real device.
 */
export class HeldDisk {
  readonly bytes: Uint8Array;
  /** What a crash leaves: what the last flush has made durable. */
  durable: Uint8Array;
  readonly held: Held[] = [];
  readonly device: BlockDevice;
  isFree = false;
  #isLost = false;
  /** Carries out no discard. */
  ignoresDiscards = false;

  constructor(bytes: Uint8Array, name: string) {
    this.bytes = bytes;
    this.durable = bytes.slice();
    const fill = (offset: number, length: number) => bytes.fill(0, offset, offset + length);
    this.device = {
      name,
      size: bytes.length,
      read: (offset: number, target: Uint8Array) =>
        this.#hold('read', () => target.set(bytes.subarray(offset, offset + target.length))),
      write: (offset: number, source: Uint8Array) =>
        this.#hold('write', () => bytes.set(source, offset)),
      zero: (offset: number, length: number) => this.#hold('zero', () => fill(offset, length)),
      discard: (offset: number, length: number) =>
        this.#hold('discard', () => this.ignoresDiscards || fill(offset, length)),
      flush: () => {
        // It covers what was answered before it was asked for, and nothing else.
        const covered = bytes.slice();
        return this.#hold('flush', () => {
          if (!this.#isLost) {
            this.durable = covered;
            return;
          }
          this.#isLost = false;
          throw new LacunaError('ERR_NBD_UNFLUSHED', `${name} has forgotten something`);
        });
      },
    } as unknown as BlockDevice;
  }

  /** Whether it has forgotten something that it has not told yet. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /** It has forgotten what was not durable, which the next flush tells. */
  crash(): void {
    this.bytes.set(this.durable);
    this.#isLost = true;
  }

  #hold(what: Held['what'], carryOut: () => unknown): Promise<void> {
    return new Promise((resolve, reject) => {
      const answer = () => {
        try {
          carryOut();
          resolve();
        } catch (error) {
          reject(error);
        }
      };
      if (this.isFree) return answer();
      const leave = () => void this.held.splice(this.held.indexOf(held), 1);
      const held: Held = {
        what,
        release: () => {
          leave();
          answer();
        },
        fail: (landed) => {
          leave();
          if (landed) carryOut();
          reject(new LacunaError('ERR_DEVICE_IO', `${what} failed by the test`));
        },
      };
      this.held.push(held);
    });
  }
}

/** Lets all promises go on that wait for nothing but each other, and for a turn of the event loop. */
export async function microtasks(): Promise<void> {
  for (let i = 0; i < 30; i++) await undefined;
  // Work that has lasted a while on a busy machine lets the event loop run.
  await setImmediate();
  for (let i = 0; i < 30; i++) await undefined;
}
