/** A disk as it was at a point, and the digests that tell whether it still is. */
import type { Bitmap } from '../../bitmap/index.js';
import { type BlockDevice, openDevice } from '../../block/index.js';
import { plan } from '../../copy/index.js';
import { DIGEST_BLOCK } from '../leaves/index.js';
import { closingAfter, type DigestParts, DiskDigests, inPoint } from './disk-digests.js';
import { describeLayers, type Layer } from './layers.js';
import type { MachinePoints } from './points.js';

export class OpenDisk extends DiskDigests {
  /** The disk; it may be longer by less than 512 bytes. */
  readonly device: BlockDevice;

  /**
   * Opens a disk; what is opened was compared with the manifest as far as it goes without reading the disk.
   *
   * @throws LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_DAMAGED, ERR_REPOSITORY_FILE
   */
  static override async open(
    points: MachinePoints,
    number: number,
    name: string,
    signal?: AbortSignal,
  ): Promise<OpenDisk> {
    const digests = await DiskDigests.open(points, number, name);
    try {
      const { layers, size } = digests;
      return new OpenDisk(digests, await openChain(points, number, layers, size, signal));
    } catch (error) {
      await digests.close();
      throw inPoint(points, number, name, error);
    }
  }

  private constructor(digests: DigestParts, device: BlockDevice) {
    super(digests);
    this.device = device;
  }

  /** Throws unless what the images say is zero was so; within a bitmap, if one is given. */
  async checkZeroes(within?: Bitmap, signal?: AbortSignal): Promise<void> {
    const source = this.device;
    const found = await plan({ source, granularity: DIGEST_BLOCK, signal });
    try {
      if (within !== undefined) found.zero.intersect(within);
      for (const { offset, length } of found.zero.ranges()) {
        const end = Math.min(this.leaves.blocks, (offset + length) / DIGEST_BLOCK);
        this.checkZero(offset / DIGEST_BLOCK, end);
      }
    } finally {
      found.data.free();
      found.zero.free();
    }
  }

  override async close(): Promise<void> {
    await super.close();
    await this.device.close();
  }
}

async function openChain(
  points: MachinePoints,
  number: number,
  layers: readonly Layer[],
  size: number,
  signal?: AbortSignal,
): Promise<BlockDevice> {
  const device = await openDevice(describeLayers(layers), { signal });
  if (device.size === Math.ceil(size / 512) * 512) return device;
  await device.close();
  const { path } = layers[0];
  throw points.damaged(number, `${path} has ${device.size} bytes, and its disk ${size}`, path);
}

/** Works with an open disk. Errors that mean a damaged image are told as damage of the point. */
export async function withDisk<T>(
  points: MachinePoints,
  number: number,
  name: string,
  work: (disk: OpenDisk) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  return await closingAfter(await OpenDisk.open(points, number, name, signal), work);
}
