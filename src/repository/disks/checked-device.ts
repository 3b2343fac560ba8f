/** A disk at a point as a device that checks what is read of it. */
import { type BlockDevice, Device, type Driver } from '../../block/index.js';
import { digestOf } from '../../copy/move/index.js';
import { Context, type ExtentList, readsAsZero } from '../../extent/index.js';
import { DIGEST_BLOCK } from '../leaves/index.js';
import type { OpenDisk } from './open-disk.js';

/** Blocks that are held, so that short reads one behind the other are not hashed again and again: 4 MiB. */
const MOST_BLOCKS = 64;

/** The device; the disk stays the caller's. */
export function checkedDevice(disk: OpenDisk): BlockDevice {
  return new Device(new CheckedDriver(disk));
}

class CheckedDriver implements Driver {
  readonly name: string;
  readonly size: number;
  readonly limits;
  readonly capabilities;
  readonly #disk: OpenDisk;
  readonly #blocks = new Map<number, Promise<Uint8Array>>();

  constructor(disk: OpenDisk) {
    const { device, points, number, name, size } = disk;
    this.#disk = disk;
    this.name = `${name} of point ${number} of ${points.machine}`;
    this.size = size;
    this.limits = { ...device.limits, minimum: 1, preferred: DIGEST_BLOCK };
    const { contexts, exactStatus } = device.capabilities;
    this.capabilities = { contexts, exactStatus, multiConnection: true };
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const end = offset + target.length;
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / DIGEST_BLOCK);
      const from = at - block * DIGEST_BLOCK;
      const length = Math.min(end - at, DIGEST_BLOCK - from);
      const bytes = await this.#block(block, signal);
      target.set(bytes.subarray(from, from + length), at - offset);
      at += length;
    }
  }

  #block(block: number, signal?: AbortSignal): Promise<Uint8Array> {
    const held = this.#blocks.get(block);
    if (held !== undefined) return held;
    const read = this.#read(block, signal);
    if (this.#blocks.size === MOST_BLOCKS) this.#blocks.delete(this.#blocks.keys().next().value!);
    this.#blocks.set(block, read);
    // The next request for a block that could not be read tries again.
    read.catch(() => this.#blocks.delete(block));
    return read;
  }

  async #read(block: number, signal?: AbortSignal): Promise<Uint8Array> {
    const { device } = this.#disk;
    const offset = block * DIGEST_BLOCK;
    const bytes = new Uint8Array(Math.min(DIGEST_BLOCK, device.size - offset));
    await device.read(offset, bytes, { signal });
    this.#disk.check(block, digestOf(bytes));
    return bytes;
  }

  async extents(
    offset: number,
    length: number,
    contexts: readonly string[],
    signal?: AbortSignal,
  ): Promise<ExtentList[]> {
    const lists = await this.#disk.device.someExtents(offset, length, { contexts, signal });
    for (const [i, list] of lists.entries()) {
      if (contexts[i] === Context.allocation) this.#checkZeroes(list);
    }
    return lists;
  }

  /** What the images say is zero is not read, and so is not checked elsewhere. */
  #checkZeroes(list: ExtentList): void {
    for (const { offset, length, flags } of list) {
      if (!readsAsZero(flags)) continue;
      const end = offset + length;
      // Of a block that is zero in part the rest is read, and all of it is checked then.
      const last = end >= this.size ? this.#disk.leaves.blocks : Math.floor(end / DIGEST_BLOCK);
      this.#disk.checkZero(Math.ceil(offset / DIGEST_BLOCK), last);
    }
  }

  async close(): Promise<void> {
    this.#blocks.clear();
  }
}
