import {
  type Geometry,
  geometryOf,
  type Header,
  RefcountCodec,
  readRefcountTableEntry,
} from '../../../../qcow2/index.js';
import { viewOf } from '../../../../util/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { readPadded } from '../io/index.js';

/** Blocks that are kept: clusters that belong together mostly lie together. */
const MOST_BLOCKS = 16;

/** Bits of an entry of the refcount table that must be 0. */
const RESERVED = 0x1ff;

/** The refcounts that an image keeps, whatever they say. */
export class StoredRefcounts {
  /** The highest that fits. */
  readonly maximum: number;
  /** Entries of the refcount table. */
  readonly blocks: number;
  /** Refcounts in a block. */
  readonly perBlock: number;
  readonly #file: BlockDevice;
  readonly #geometry: Geometry;
  readonly #codec: RefcountCodec;
  readonly #table: DataView;
  readonly #kept = new Map<number, Uint8Array>();

  private constructor(file: BlockDevice, header: Header, table: Uint8Array) {
    this.#file = file;
    this.#geometry = geometryOf(header);
    this.#codec = new RefcountCodec(header.refcountOrder);
    this.#table = viewOf(table);
    this.maximum = this.#codec.maximum;
    this.blocks = table.length / 8;
    this.perBlock = this.#geometry.refcountBlockEntries;
  }

  static async open(file: BlockDevice, header: Header): Promise<StoredRefcounts> {
    const { refcountTableOffset, refcountTableClusters } = header;
    const table = new Uint8Array(refcountTableClusters * geometryOf(header).clusterSize);
    await readPadded(file, refcountTableOffset, table);
    return new StoredRefcounts(file, header, table);
  }

  /** Where a block lies; 0 where there is none. */
  blockOffset(index: number): number {
    return index < this.blocks ? readRefcountTableEntry(this.#table, index * 8) : 0;
  }

  /** Whether an entry of the table has bits that must be 0. */
  isReserved(index: number): boolean {
    return (this.#table.getUint32(index * 8 + 4) & RESERVED) !== 0;
  }

  /** The refcount of a cluster; undefined where the table names a place for it that cannot be. */
  get(cluster: number): number | undefined | Promise<number | undefined> {
    const index = Math.floor(cluster / this.perBlock);
    const kept = this.#kept.get(index);
    if (kept !== undefined) return this.#codec.get(kept, cluster % this.perBlock);
    return this.#read(index, cluster);
  }

  async #read(index: number, cluster: number): Promise<number | undefined> {
    const { clusterSize } = this.#geometry;
    const offset = this.blockOffset(index);
    if (offset === 0) return 0;
    if (offset % clusterSize !== 0) return undefined;
    const block = new Uint8Array(clusterSize);
    await readPadded(this.#file, offset, block);
    if (this.#kept.size >= MOST_BLOCKS) {
      const [oldest] = this.#kept.keys();
      this.#kept.delete(oldest);
    }
    this.#kept.set(index, block);
    return this.#codec.get(block, cluster % this.perBlock);
  }
}
