/** A disk with zeroes behind its end, up to a multiple of 512 bytes: as long as the image that it is copied to. */
import { type BlockDevice, Device, type Driver } from '../../block/index.js';
import { Context, ExtentList, Status } from '../../extent/index.js';
import { alignUp } from '../../util/index.js';

const SECTOR = 512;

/**
 * The device, which the caller need not close. Without it an image would hold in its last sector what the one below holds
 * there, where that is longer.
 */
export function paddedDevice(source: BlockDevice): BlockDevice {
  return source.size % SECTOR === 0 ? source : new Device(new PaddedDriver(source));
}

class PaddedDriver implements Driver {
  readonly name: string;
  readonly size: number;
  readonly limits;
  readonly capabilities;
  readonly #source: BlockDevice;

  constructor(source: BlockDevice) {
    this.#source = source;
    this.name = source.name;
    this.size = alignUp(source.size, SECTOR);
    this.limits = { ...source.limits, minimum: 1 };
    const { contexts, exactStatus } = source.capabilities;
    const isKnown = contexts.includes(Context.allocation);
    this.capabilities = {
      contexts: isKnown ? [Context.allocation] : [],
      exactStatus,
      multiConnection: true,
    };
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const there = Math.max(0, Math.min(target.length, this.#source.size - offset));
    target.fill(0, there);
    if (there > 0) await this.#source.read(offset, target.subarray(0, there), { signal });
  }

  async extents(
    offset: number,
    length: number,
    contexts: readonly string[],
    signal?: AbortSignal,
  ): Promise<ExtentList[]> {
    const there = Math.min(length, this.#source.size - offset);
    if (there <= 0) return contexts.map(() => ExtentList.of(offset, length, Status.zero));
    const lists = await this.#source.someExtents(offset, there, { contexts, signal });
    for (const list of lists) {
      if (list.end === this.#source.size) list.push(offset + length - list.end, Status.zero);
    }
    return lists;
  }

  async close(): Promise<void> {}
}
