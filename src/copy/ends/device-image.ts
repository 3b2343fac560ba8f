/**
 * A new qcow2 image on a block device or an NBD export, which grows into it as far as it reaches. It has no name of its own
 * until it is whole, as a file would have; so what begins there is no image until then, to anybody else.
 */
import { Bitmap } from '../../bitmap/bits/index.js';
import {
  type BlockDevice,
  changeUnfiltered,
  Device,
  type DeviceDescription,
  type Driver,
  finishQcow2On,
  isRemote,
  layOutQcow2On,
  openDevice,
  type Qcow2Description,
  type Qcow2Options,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { alignUp, closeAfter } from '../../util/index.js';
import type { CopyOptions } from '../options/index.js';
import type { Increment } from './increment-layout.js';
import type { Target } from './opened-target.js';
import { refuseLikeness, refuseSource } from './same-disk.js';
import { reopened } from './source.js';

const DEFAULT_CLUSTER_SIZE = 64 * 1024;

type Choices = Pick<
  CopyOptions,
  'image' | 'compress' | 'carryBitmaps' | 'preallocation' | 'resume' | 'flush'
>;

/**
 * Measures and lays out the image when it is known what will be written, and not before: what does not fit is refused while
 * the device holds what it held.
 *
 * @throws LacunaError ERR_DEVICE_UNSUPPORTED for what only a file can have
 */
export async function imageOnDevice(
  target: DeviceDescription,
  image: Qcow2Description,
  source: BlockDevice,
  options: Choices & { readonly signal: AbortSignal },
): Promise<Target> {
  const { signal, flush = true } = options;
  const { clusterSize = DEFAULT_CLUSTER_SIZE } = options.image ?? {};
  const raw = new Below(image.file, await openRaw(image.file, source, options));
  const { name } = raw.device;
  const made = { ...options.image, clusterSize, size: source.size, signal };
  const open = () => openUnfinished(target, image, raw.description, signal);
  const opened: Target = {
    device: new Device(placeholder(raw.device, source.size, clusterSize)),
    isZero: true,
    holdsOldData: true,
    warnings: [],
    binding: { target: name },
    layOut: async ({ data }: Increment) => {
      const begins = () => {
        opened.partOfImage = name;
      };
      opened.device = await layOut(raw, { made, data, begins, open });
    },
    anchor: async () => {},
    finish: async () => {
      await opened.device.close();
      await raw.finish({ flush, signal });
      opened.partOfImage = undefined;
      return [];
    },
    removeUnfinished: async () => {},
    keepUnfinished: async () => undefined,
    reopen: async () => {
      opened.device = await reopened(opened.device, open);
    },
    close: () => raw.closeBelow(opened.device),
  };
  return opened;
}

/** The image while it is being made, below the filters that it is written through. */
function openUnfinished(
  target: DeviceDescription,
  image: Qcow2Description,
  file: DeviceDescription,
  signal: AbortSignal,
): Promise<BlockDevice> {
  const mapping = 'unfinished';
  const described = changeUnfiltered(target, () => ({ ...image, file, backing: null, mapping }));
  return openDevice(described, { writable: true, signal });
}

/** What holds the image. It stays open, and so locked, unless it is an export, whose server may let in one client at a time. */
class Below {
  device: BlockDevice;
  /** How the image opens it. */
  readonly description: DeviceDescription;
  readonly #given: DeviceDescription;
  readonly #stays: boolean;

  constructor(given: DeviceDescription, device: BlockDevice) {
    this.device = device;
    this.#given = given;
    this.#stays = !isRemote(given);
    this.description = this.#stays ? (device.description ?? given) : given;
  }

  /** Lets the image open it. */
  async letGo(): Promise<void> {
    if (this.#stays) return;
    // The image opens the export anew, and could not tell that its server has lost what was written before.
    await this.device.flush();
    await this.device.close();
  }

  /** Makes the image one, when it is closed and all of it is written. */
  async finish({ flush, signal }: { flush: boolean; signal: AbortSignal }): Promise<void> {
    if (!this.#stays) this.device = await openDevice(this.#given, { writable: true, signal });
    await finishQcow2On(this.device, signal);
    if (flush) await this.device.flush({ signal });
  }

  closeBelow(image: BlockDevice): Promise<void> {
    return closeAfter(
      () => image.close(),
      () => this.device.close(),
    );
  }
}

async function openRaw(
  file: DeviceDescription,
  source: BlockDevice,
  { signal, ...choices }: Choices & { readonly signal: AbortSignal },
): Promise<BlockDevice> {
  const raw = await openDevice(file, { writable: true, signal });
  try {
    refuseChoices(raw.name, choices);
    await refuseSource(raw.description, source, { isNewImage: true });
    await refuseLikeness(raw, source, { isNewImage: true });
    return raw;
  } catch (error) {
    await raw.close();
    throw error;
  }
}

/** Stands for the image until that is laid out: nothing but its limits is asked. */
function placeholder(raw: BlockDevice, size: number, cluster: number): Driver {
  const { name, limits, capabilities } = raw;
  const unit = Math.max(cluster, limits.minimum);
  const tooEarly = async (): Promise<never> => {
    throw new Error(`${name} is moved to before the image on it is laid out`);
  };
  return {
    name,
    size: alignUp(size, 512),
    limits: { ...limits, preferred: unit, zeroAlignment: unit, discardAlignment: unit },
    capabilities: { ...capabilities, contexts: [], discard: false },
    read: tooEarly,
    write: tooEarly,
    zero: tooEarly,
    flush: tooEarly,
    close: async () => {},
  };
}

interface Layout {
  readonly made: Qcow2Options & { readonly clusterSize: number };
  readonly data: Bitmap;
  /** Called when it is known that all fits, before anything is changed. */
  begins(): void;
  open(): Promise<BlockDevice>;
}

async function layOut(raw: Below, layout: Layout): Promise<BlockDevice> {
  const { made, data, begins, open } = layout;
  const { size, arena } = data;
  using mapped = new Bitmap({ size, granularity: made.clusterSize, arena });
  mapped.merge(data);
  await layOutQcow2On(raw.device, made, mapped, begins);
  await raw.letGo();
  const device = await open();
  using rest = new Bitmap({
    size,
    granularity: Math.min(made.clusterSize, data.granularity),
    arena,
  });
  rest.merge(mapped);
  rest.subtract(data);
  // Clusters of which the copy writes a part hold what was there before.
  try {
    for (const { offset, length } of rest.ranges()) {
      await device.zero(offset, length, { signal: made.signal });
    }
    // What is lost with a server from here on is in the plan, and is written again.
    await device.flush({ signal: made.signal });
    return device;
  } catch (error) {
    await device.close();
    throw error;
  }
}

/** @throws LacunaError ERR_DEVICE_UNSUPPORTED */
function refuseChoices(
  name: string,
  { image = {}, compress, carryBitmaps, preallocation = 'off', resume }: Choices,
): void {
  const odd =
    (compress && 'cannot be compressed') ||
    (carryBitmaps && 'cannot get the bitmaps of the source') ||
    (preallocation !== 'off' && 'cannot be preallocated') ||
    (image.backing !== undefined && 'cannot have a backing file') ||
    (image.dataFile !== undefined && 'cannot have a data file') ||
    (resume !== undefined && 'cannot be resumed');
  if (!odd) return;
  const message = `a new image on ${name}, which is not a regular file, ${odd}: leave that option out, or make the image in a file`;
  throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: name });
}
