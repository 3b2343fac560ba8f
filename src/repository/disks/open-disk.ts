/** A disk as it was at a point, and the digests that tell whether it still is. */
import type { Bitmap } from '../../bitmap/index.js';
import { type BlockDevice, openDevice } from '../../block/index.js';
import { plan } from '../../copy/index.js';
import { isAborted, LacunaError } from '../../errors/index.js';
import { closeAfter, counted } from '../../util/index.js';
import { DIGEST_BLOCK, LeafChain, LeafFile } from '../leaves/index.js';
import { describeLayers, type Layer, layersOf } from './layers.js';
import type { MachinePoints } from './points.js';

type Parts = Pick<
  OpenDisk,
  'points' | 'number' | 'name' | 'size' | 'layers' | 'files' | 'leaves' | 'device'
>;

/** Images of a disk below some others. */
export type LowerImages = Pick<OpenDisk, 'layers' | 'files' | 'leaves' | 'size'>;

export class OpenDisk implements AsyncDisposable {
  readonly points: MachinePoints;
  readonly number: number;
  readonly name: string;
  /** Bytes of the disk. */
  readonly size: number;
  /** Its own first. */
  readonly layers: readonly Layer[];
  /** The leaves of the layers, in the same order. */
  readonly files: readonly LeafFile[];
  readonly leaves: LeafChain;
  /** The disk; it may be longer by less than 512 bytes. */
  readonly device: BlockDevice;

  /**
   * Opens a disk; what is opened was compared with the manifest as far as it goes without reading the disk.
   *
   * @throws LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_DAMAGED, ERR_REPOSITORY_FILE
   */
  static async open(
    points: MachinePoints,
    number: number,
    name: string,
    signal?: AbortSignal,
  ): Promise<OpenDisk> {
    const layers = await layersOf(points, number, name);
    const files: LeafFile[] = [];
    try {
      for (const { leaves, state } of layers) files.push(LeafFile.open(leaves, state.leaves));
      const chain = new LeafChain(files);
      const { size, digest } = points.diskOf(number, name);
      if (chain.size !== size || chain.root() !== digest) {
        const what = `the digests of its disk ${name} are not those of its manifest`;
        throw points.damaged(number, what, layers[0].leaves);
      }
      const device = await openChain(points, number, layers, size, signal);
      return new OpenDisk({ points, number, name, size, layers, files, leaves: chain, device });
    } catch (error) {
      for (const file of files) file.close();
      throw inPoint(points, number, name, error);
    }
  }

  private constructor(parts: Parts) {
    this.points = parts.points;
    this.number = parts.number;
    this.name = parts.name;
    this.size = parts.size;
    this.layers = parts.layers;
    this.files = parts.files;
    this.leaves = parts.leaves;
    this.device = parts.device;
  }

  /** What its images show without the first so many; it lasts as long as the disk. Undefined where that are all. */
  lower(without: number): LowerImages | undefined {
    const files = this.files.slice(without);
    if (files.length === 0) return undefined;
    const leaves = new LeafChain(files);
    return { layers: this.layers.slice(without), files, leaves, size: leaves.size };
  }

  /** Throws unless a block that was read is what it was. */
  readonly check = (block: number, digest: Uint8Array): void => {
    if (!this.leaves.digestOf(block).equals(digest)) throw this.damaged(block);
  };

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

  /** Throws unless blocks that read as zero were so. */
  checkZero(from: number, end: number): void {
    for (const block of this.leaves.dataBlocks(from, end)) throw this.damaged(block);
  }

  damaged(block: number): LacunaError {
    const { number, name, points } = this;
    const offset = block * DIGEST_BLOCK;
    const length = Math.min(DIGEST_BLOCK, this.size - offset);
    const path = this.#holderOf(block);
    const message = `Point ${number} of ${points.machine}: disk ${name} holds other bytes than were backed up: ${counted(length, 'byte')} at ${offset} (${path})`;
    return new LacunaError('ERR_REPOSITORY_DAMAGED', message, { device: path, offset, length });
  }

  /** The image that should hold a block. */
  #holderOf(block: number): string {
    const holds = (file: LeafFile) =>
      file.runs.some(({ first, blocks }) => block >= first && block < first + blocks);
    const index = this.files.findIndex(holds);
    return this.layers[index === -1 ? 0 : index].path;
  }

  async close(): Promise<void> {
    for (const file of this.files) file.close();
    await this.device.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
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

/** Codes of what an image or its leaves cannot be, which is told as damage of a point. */
const OF_DAMAGE = [
  'ERR_QCOW2_CORRUPT',
  'ERR_QCOW2_UNSUPPORTED',
  'ERR_DEVICE_FORMAT',
  'ERR_DEVICE_SHORT',
  'ERR_IMAGE_CHAIN',
  'ERR_REPOSITORY_DAMAGED',
];

/** Turns an error of an image into damage of its point, if it is one. Other errors stay as they are. */
function inPoint(
  { machine }: MachinePoints,
  number: number,
  disk: string,
  error: unknown,
): unknown {
  if (isAborted(error) || !(error instanceof LacunaError)) return error;
  const point = `Point ${number} of ${machine}`;
  if (!OF_DAMAGE.includes(error.code) || error.message.startsWith('Point ')) return error;
  const { device, offset, length, message } = error;
  const context = { device, offset, length, cause: error };
  return new LacunaError('ERR_REPOSITORY_DAMAGED', `${point}: disk ${disk}: ${message}`, context);
}

/** Works with an open disk. Errors that mean a damaged image are told as damage of the point. */
export async function withDisk<T>(
  points: MachinePoints,
  number: number,
  name: string,
  work: (disk: OpenDisk) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const disk = await OpenDisk.open(points, number, name, signal);
  try {
    return await closeAfter(
      () => work(disk),
      () => disk.close(),
    );
  } catch (error) {
    throw inPoint(points, number, name, error);
  }
}
