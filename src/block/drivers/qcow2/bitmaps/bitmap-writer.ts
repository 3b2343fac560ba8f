import type { Bitmap } from '../../../../bitmap/index.js';
import {
  BitmapCluster,
  type BitmapOwner,
  bitmapTableEntries,
  encodeBitmapTable,
} from '../../../../qcow2/index.js';
import { Turns } from '../../../../util/index.js';
import type { HostFile } from '../io/index.js';
import type { Allocator, Run } from '../write/index.js';

/** Where the bits of a bitmap have been written. */
export interface WrittenBits {
  readonly tableOffset: number;
  readonly tableEntries: number;
}

/**
 * Writes bits into new clusters of an image, which nothing refers to yet. Clusters of bits that are all alike are said
 * by their table, and take no room.
 */
export class BitmapWriter {
  readonly #owner: BitmapOwner;
  readonly #file: HostFile;
  readonly #allocator: Allocator;
  /** All clusters that were taken so far, to be given back if nothing comes to refer to them. */
  readonly runs: Run[] = [];

  constructor(owner: BitmapOwner, file: HostFile, allocator: Allocator) {
    this.#owner = owner;
    this.#file = file;
    this.#allocator = allocator;
  }

  /** Writes bytes into clusters in a row, filled up with zeroes; returns where they start. */
  async write(bytes: Uint8Array): Promise<number> {
    const { clusterSize } = this.#owner.geometry;
    const run = await this.#allocator.allocateTogether(Math.ceil(bytes.length / clusterSize));
    this.runs.push(run);
    const padded = new Uint8Array(run.count * clusterSize);
    padded.set(bytes);
    await this.#file.write(run.offset, padded);
    return run.offset;
  }

  /** Writes the bits and the table of a bitmap, which must not change meanwhile. */
  async writeBits(bitmap: Bitmap): Promise<WrittenBits> {
    const { size, geometry } = this.#owner;
    const span = geometry.clusterSize * 8 * bitmap.granularity;
    const entries = bitmapTableEntries(Math.log2(bitmap.granularity), this.#owner);
    const table = new Float64Array(entries).fill(BitmapCluster.allClean);
    const turns = new Turns();
    for (let at = bitmap.nextDirty(0); at !== -1; ) {
      await turns.next();
      const index = Math.floor(at / span);
      const start = index * span;
      const end = Math.min(size, start + span);
      const alike = bitmap.nextZero(start, end) === -1 && isWhole(end - start, bitmap.granularity);
      table[index] = alike
        ? BitmapCluster.allDirty
        : await this.write(bitmap.serialize(start, end - start));
      at = bitmap.nextDirty(end);
    }
    const tableOffset = await this.write(encodeBitmapTable(table));
    return { tableOffset, tableEntries: entries };
  }
}

/**
 * Whether so many bytes are described by whole words of bits. QEMU takes "all dirty" for a cluster whose last word is
 * needed in part for the whole of that word, and then counts bits behind the end of the disk.
 */
function isWhole(length: number, granularity: number): boolean {
  return length % (granularity * 64) === 0;
}
