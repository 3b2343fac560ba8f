import type { Bitmap } from '../../bitmap/index.js';
import { type BlockDevice, Device, type Driver, openDevice } from '../../block/index.js';
import { plan } from '../../copy/index.js';
import { Context, DIRTY, ExtentList, Status } from '../../extent/index.js';
import { orAborted } from '../../util/index.js';
import { GRANULE } from './granule.js';
import type { LandedRanges } from './landing.js';

/** A disk that lands, or has landed. */
export interface LandedDisk {
  readonly file: string;
  /** Bytes. */
  readonly size: number;
  /** Freed when the device is closed. */
  readonly ranges: LandedRanges;
  /** The context that says what has landed; undefined where all of the disk lands. */
  readonly context?: string | undefined;
  /** What has not landed; undefined where all of the disk lands. */
  readonly below?: ViewBelow | undefined;
  /** Resolves when it has landed, and counts. */
  readonly arrival: Promise<void>;
}

/** The view that QEMU pushes a part of; closed and freed with the device. */
export interface ViewBelow {
  readonly device: BlockDevice;
  /** What reads as zero in it. */
  readonly zero: Bitmap;
}

/**
 * Takes the status of a view, before anything of it is pushed: what was pushed may be given back, and has none then.
 *
 * @param device closed where that fails
 */
export async function viewBelow(device: BlockDevice, signal?: AbortSignal): Promise<ViewBelow> {
  try {
    const { data, zero } = await plan({ source: device, granularity: GRANULE, signal });
    data.free();
    return { device, zero };
  } catch (error) {
    await device.close();
    throw error;
  }
}

/** What an increment has to take of a view, in granules that QEMU pushes; the caller frees it. */
export async function changesIn(
  view: BlockDevice,
  context: string,
  signal?: AbortSignal,
): Promise<Bitmap> {
  const { data, zero } = await plan({ source: view, context, granularity: GRANULE, signal });
  data.merge(zero);
  zero.free();
  return data;
}

/** A disk that QEMU pushes, as a device: a read waits until it has landed. */
export function landedDevice(disk: LandedDisk): BlockDevice {
  return new Device(new LandedDriver(disk));
}

class LandedDriver implements Driver {
  readonly name: string;
  readonly size: number;
  readonly limits;
  readonly capabilities;
  readonly #disk: LandedDisk;
  #file: Promise<BlockDevice> | undefined;
  #known: KnownRanges | undefined;

  constructor(disk: LandedDisk) {
    this.#disk = disk;
    this.name = disk.file;
    this.size = disk.size;
    const most = Number.MAX_SAFE_INTEGER;
    this.limits = {
      ...{ minimum: 1, preferred: 4096, maximum: 2 ** 25, maximumZero: most },
      ...{ zeroAlignment: 1, discardAlignment: 1 },
    };
    const contexts = [Context.allocation, ...(disk.context === undefined ? [] : [disk.context])];
    this.capabilities = { contexts, exactStatus: true };
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const file = await this.#landed(signal);
    const { below } = this.#disk;
    for (let at = 0; at < target.length; ) {
      const { dirty: hasLanded, length } = this.#known!.landed.status(
        offset + at,
        target.length - at,
      );
      const source = hasLanded || below === undefined ? file : below.device;
      await source.read(offset + at, target.subarray(at, at + length), { signal });
      at += length;
    }
  }

  async extents(
    offset: number,
    length: number,
    contexts: readonly string[],
    signal?: AbortSignal,
  ): Promise<ExtentList[]> {
    await this.#landed(signal);
    const { zero, landed } = this.#known!;
    return contexts.map((context) =>
      context === Context.allocation
        ? runsOf(zero, offset, length, { inside: Status.zero | Status.hole, outside: Status.data })
        : runsOf(landed, offset, length, { inside: DIRTY, outside: 0 }),
    );
  }

  async close(): Promise<void> {
    const { below, ranges } = this.#disk;
    await (await this.#file?.catch(() => undefined))?.close();
    await below?.device.close();
    for (const bitmap of [this.#known?.landed, this.#known?.zero, below?.zero]) bitmap?.free();
    ranges.free();
  }

  async #landed(signal: AbortSignal | undefined): Promise<BlockDevice> {
    await orAborted(this.#disk.arrival, signal);
    this.#known ??= this.#learn();
    this.#file ??= openDevice({ driver: 'file', filename: this.#disk.file });
    return await this.#file;
  }

  #learn(): KnownRanges {
    const { ranges, below } = this.#disk;
    const landed = ranges.data.snapshot();
    landed.merge(ranges.zero);
    const zero = ranges.zero.snapshot();
    if (below !== undefined) zero.merge(below.zero);
    zero.subtract(ranges.data);
    return { landed, zero };
  }
}

interface KnownRanges {
  readonly landed: Bitmap;
  readonly zero: Bitmap;
}

function runsOf(
  bitmap: Bitmap,
  offset: number,
  length: number,
  flags: { readonly inside: number; readonly outside: number },
): ExtentList {
  const list = new ExtentList(offset);
  const end = offset + length;
  for (const run of bitmap.ranges(offset, end)) {
    list.push(run.offset - list.end, flags.outside);
    list.push(run.length, flags.inside);
  }
  list.push(end - list.end, flags.outside);
  return list;
}
