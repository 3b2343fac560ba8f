/** The digests of a disk as it was at a point; its images are there, and are not opened. */
import { isAborted, LacunaError } from '../../errors/index.js';
import { closeAfter, counted } from '../../util/index.js';
import { DIGEST_BLOCK, LeafChain, LeafFile } from '../leaves/index.js';
import { type Layer, layersOf } from './layers.js';
import type { MachinePoints } from './points.js';

/** What digests are made of. */
export type DigestParts = Pick<
  DiskDigests,
  'points' | 'number' | 'name' | 'size' | 'layers' | 'files' | 'leaves'
>;

/** Images of a disk below some others. */
export type LowerImages = Pick<DiskDigests, 'layers' | 'files' | 'leaves' | 'size'>;

export class DiskDigests implements AsyncDisposable {
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

  /**
   * Opens the digests of a disk, which are those of its manifest.
   *
   * @throws LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_DAMAGED, ERR_REPOSITORY_FILE
   */
  static async open(points: MachinePoints, number: number, name: string): Promise<DiskDigests> {
    return await DiskDigests.over(points, number, name, await layersOf(points, number, name));
  }

  /**
   * Opens the digests of a disk whose images are known.
   *
   * @throws LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_DAMAGED, ERR_REPOSITORY_FILE
   */
  static async over(
    points: MachinePoints,
    number: number,
    name: string,
    layers: readonly Layer[],
  ): Promise<DiskDigests> {
    const files: LeafFile[] = [];
    try {
      for (const { leaves, state } of layers) files.push(LeafFile.open(leaves, state.leaves));
      const chain = new LeafChain(files);
      const { size, digest } = points.diskOf(number, name);
      if (chain.size !== size || chain.root() !== digest) {
        const what = `the digests of its disk ${name} are not those of its manifest`;
        throw points.damaged(number, what, layers[0].leaves);
      }
      return new DiskDigests({ points, number, name, size, layers, files, leaves: chain });
    } catch (error) {
      for (const file of files) file.close();
      throw inPoint(points, number, name, error);
    }
  }

  protected constructor(parts: DigestParts) {
    this.points = parts.points;
    this.number = parts.number;
    this.name = parts.name;
    this.size = parts.size;
    this.layers = parts.layers;
    this.files = parts.files;
    this.leaves = parts.leaves;
  }

  /** What its images show without the first so many; it lasts as long as the disk. Undefined where those are all. */
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
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
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
export function inPoint(
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

/** Works with the digests of a disk. Errors that mean damage are told as damage of the point. */
export async function withDigests<T>(
  points: MachinePoints,
  number: number,
  name: string,
  work: (digests: DiskDigests) => Promise<T>,
): Promise<T> {
  return await closingAfter(await DiskDigests.open(points, number, name), work);
}

/** Does something with what is open, and closes it. */
export async function closingAfter<D extends DiskDigests, T>(
  disk: D,
  work: (disk: D) => Promise<T>,
): Promise<T> {
  try {
    return await closeAfter(
      () => work(disk),
      () => disk.close(),
    );
  } catch (error) {
    throw inPoint(disk.points, disk.number, disk.name, error);
  }
}
