/** A new qcow2 image on a block device or an NBD export, which grows into it as far as it reaches. */
import { Bitmap } from '../../bitmap/bits/index.js';
import {
  type BlockDevice,
  changeUnfiltered,
  Device,
  type DeviceDescription,
  type Driver,
  layOutQcow2On,
  openDevice,
  type Qcow2Description,
  type Qcow2Options,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { alignUp } from '../../util/index.js';
import type { CopyOptions } from '../options/index.js';
import type { Increment } from './increment-layout.js';
import type { Target } from './opened-target.js';
import { refuseLikeness, refuseSource } from './same-disk.js';
import { reopened } from './source.js';

const DEFAULT_CLUSTER_SIZE = 64 * 1024;

/** What of a header names it an image. */
const HEADER_BYTES = 512;

type Choices = Pick<
  CopyOptions,
  'image' | 'compress' | 'carryBitmaps' | 'preallocation' | 'resume'
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
  const { signal } = options;
  const { clusterSize = DEFAULT_CLUSTER_SIZE } = options.image ?? {};
  const raw = await openRaw(image.file, source, options);
  const described = changeUnfiltered(target, () => ({ ...image, backing: null, mapping: 'fixed' }));
  const open = () => openDevice(described, { writable: true, signal });
  const made = { ...options.image, clusterSize, size: source.size, signal };
  let isPart = false;
  const begins = () => {
    isPart = true;
  };
  const opened: Target = {
    device: new Device(placeholder(raw, source.size, clusterSize)),
    isZero: true,
    warnings: [],
    binding: { target: raw.name },
    layOut: async ({ data }: Increment) => {
      opened.device = await layOut(raw, { made, data, begins, open });
    },
    anchor: async () => {},
    finish: async () => {
      isPart = false;
      return [];
    },
    removeUnfinished: async () => {},
    keepUnfinished: () => opened.finish().then(() => undefined),
    reopen: async () => {
      opened.device = await reopened(opened.device, open);
    },
    close: async () => {
      await opened.device.close();
      await raw.close();
      // Nobody shall take a part for the whole.
      if (isPart) await eraseHeader(image.file).catch(() => {});
    },
  };
  return opened;
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

async function layOut(raw: BlockDevice, layout: Layout): Promise<BlockDevice> {
  const { made, data, begins, open } = layout;
  const { size, arena } = data;
  using mapped = new Bitmap({ size, granularity: made.clusterSize, arena });
  mapped.merge(data);
  await layOutQcow2On(raw, made, mapped, begins);
  await raw.close();
  const device = await open();
  using rest = new Bitmap({
    size,
    granularity: Math.min(made.clusterSize, data.granularity),
    arena,
  });
  rest.merge(mapped);
  rest.subtract(data);
  // Clusters of which the copy writes a part hold what was there before.
  for (const { offset, length } of rest.ranges()) await device.zero(offset, length);
  return device;
}

async function eraseHeader(file: DeviceDescription): Promise<void> {
  await using device = await openDevice(file, { writable: true });
  await device.write(0, new Uint8Array(HEADER_BYTES));
  await device.flush();
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
