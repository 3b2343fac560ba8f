/** The digests of all blocks of a disk at a point: those that its image holds, and below them those of its parents. */
import { LacunaError } from '../../errors/index.js';
import type { LeafFile } from './leaf-file.js';
import {
  blocksOf,
  DIGEST_BYTES,
  isZeroPart,
  PART_BLOCKS,
  partDigest,
  rootOf,
  ZERO_LEAF,
  zeroPart,
} from './tree.js';

/** Parts that are held in memory: 8 MiB. */
const MOST_PARTS = 1024;

interface Layer {
  readonly file: LeafFile;
  /** First block that a layer above has cut off. */
  readonly limit: number;
}

export class LeafChain {
  /** Bytes of the disk. */
  readonly size: number;
  readonly #layers: readonly Layer[];
  readonly #known = new Map<number, Buffer>();
  #parts: Map<number, Buffer> | undefined;

  /** @param files of the point first, then that of its parent, and so on; they stay the caller's. */
  constructor(files: readonly LeafFile[]) {
    this.size = files[0].size;
    let limit = Number.POSITIVE_INFINITY;
    this.#layers = files.map((file) => {
      limit = Math.min(limit, file.blocks);
      return { file, limit };
    });
  }

  /** The digest of a block; it must not be changed. */
  digestOf(block: number): Buffer {
    const at = (block % PART_BLOCKS) * DIGEST_BYTES;
    return this.part(Math.floor(block / PART_BLOCKS)).subarray(at, at + DIGEST_BYTES);
  }

  /**
   * The digests of a part; they must not be changed.
   *
   * @throws LacunaError ERR_REPOSITORY_DAMAGED where they are not those that were written.
   */
  part(index: number): Buffer {
    const known = this.#known.get(index);
    if (known !== undefined) return known;
    const digests = zeroPart();
    const filled = new Uint8Array(PART_BLOCKS);
    for (const { file, limit } of this.#layers) file.fill(index, digests, filled, limit);
    const wanted = this.parts().get(index);
    const found = partDigest(digests);
    if (wanted === undefined ? !isZeroPart(found) : !found.equals(wanted)) throw this.#damaged();
    if (this.#known.size === MOST_PARTS) this.#known.clear();
    this.#known.set(index, digests);
    return digests;
  }

  /** The digests of all parts that are not zero. */
  parts(): ReadonlyMap<number, Buffer> {
    if (this.#parts !== undefined) return this.#parts;
    const parts = new Map<number, Buffer>();
    for (const { file, limit } of this.#layers) {
      for (const [index, digest] of file.parts) {
        if (index * PART_BLOCKS < limit && !parts.has(index)) parts.set(index, digest);
      }
    }
    for (const [index, digest] of parts) if (isZeroPart(digest)) parts.delete(index);
    this.#parts = parts;
    return parts;
  }

  /** The blocks of a range that are not zero, in order; parts of zeroes cost nothing. */
  *dataBlocks(from = 0, end = this.blocks): Generator<number> {
    for (let block = from; block < end; ) {
      const part = Math.floor(block / PART_BLOCKS);
      const next = Math.min(end, (part + 1) * PART_BLOCKS);
      for (; this.parts().has(part) && block < next; block++) {
        if (!this.digestOf(block).equals(ZERO_LEAF)) yield block;
      }
      block = next;
    }
  }

  /** The digest of the disk. */
  root(): string {
    return rootOf(this.size, this.parts(), () => this.part(0));
  }

  /** Blocks of the disk. */
  get blocks(): number {
    return blocksOf(this.size);
  }

  #damaged(): LacunaError {
    const { path } = this.#layers[0].file;
    const message = `${path}, or one below it: the digests of blocks do not fit those of their part: they were changed since they were written`;
    return new LacunaError('ERR_REPOSITORY_DAMAGED', message, { device: path });
  }
}
