import { LacunaError } from '../../../../errors/index.js';
import {
  type Area,
  blockCluster,
  corrupt,
  cutShort,
  type Geometry,
  MAX_HOST_OFFSET,
  MAX_REFCOUNT_TABLE_BYTES,
  planArea,
  planTableGrowth,
  RefcountCodec,
  readRefcountTableEntry,
  writeRefcountTableEntry,
} from '../../../../qcow2/index.js';
import { viewOf } from '../../../../util/index.js';
import { type HostFile, joinSpans, type LiveHeader, type Span } from '../io/index.js';

/** Refcount blocks are kept up to this many bytes, and eight of them whatever they take. */
const CACHE_BYTES = 8 * 1024 * 1024;
const CACHE_BLOCKS = 8;

const BLOCK = 'a refcount block';

/** A refcount block in memory. */
export interface RefcountBlock {
  readonly index: number;
  readonly bytes: Uint8Array;
  /** What the file does not have yet. */
  dirty?: Span;
  /** The table in the file does not name it yet. */
  fresh: boolean;
}

/** Clusters in a row. */
export interface Run {
  /** Byte of the file where the first one starts. */
  readonly offset: number;
  readonly count: number;
}

/**
 * The refcounts of an image that is being written: the table, and its blocks as far as they are in memory. They change
 * in memory; what the file does not have yet goes there with `writeBack`, or when there is no more room for it.
 */
export class RefcountBlocks {
  readonly codec: RefcountCodec;
  readonly #file: HostFile;
  readonly #header: LiveHeader;
  readonly #geometry: Geometry;
  readonly #blocks = new Map<number, RefcountBlock>();
  readonly #blockLimit: number;
  #table: Uint8Array;
  /** Entries of the table up to the last one that names a block. */
  #describedBlocks: number;

  private constructor(file: HostFile, header: LiveHeader, table: Uint8Array) {
    this.#file = file;
    this.#header = header;
    this.#geometry = header.geometry;
    this.codec = new RefcountCodec(header.current.refcountOrder);
    this.#table = table;
    this.#describedBlocks = table.length / 8;
    while (this.#describedBlocks > 0 && this.#blockOffset(this.#describedBlocks - 1) === 0) {
      this.#describedBlocks--;
    }
    for (let index = 0; index < this.#describedBlocks; index++) {
      const offset = this.#blockOffset(index);
      if (offset !== 0) header.tables.set(offset, BLOCK);
    }
    this.#blockLimit = Math.max(CACHE_BLOCKS, CACHE_BYTES / this.#geometry.clusterSize);
  }

  static async open(file: HostFile, header: LiveHeader): Promise<RefcountBlocks> {
    const { refcountTableOffset, refcountTableClusters } = header.current;
    const table = new Uint8Array(refcountTableClusters * header.geometry.clusterSize);
    if (table.length === 0) throw corrupt(file.name, 'no refcount table', 56);
    if (refcountTableOffset + table.length > file.end) {
      const place = { offset: refcountTableOffset, end: file.end };
      throw cutShort(file.name, 'the refcount table', place);
    }
    await file.read(refcountTableOffset, table);
    return new RefcountBlocks(file, header, table);
  }

  /** Blocks that the table can name. */
  get room(): number {
    return this.#table.length / 8;
  }

  /** Blocks up to the last one that the table names. */
  get described(): number {
    return this.#describedBlocks;
  }

  /** A new block, in the first of the clusters that it describes. */
  addBlock(index: number): RefcountBlock {
    const { clusterSize, refcountBlockEntries } = this.#geometry;
    const area = planArea(index, 0, refcountBlockEntries);
    this.checkPlace({ offset: area.start * clusterSize, count: 1 });
    return this.addBlocks(area)[0];
  }

  /** Adds the blocks of an area to the table in memory, and counts all of its clusters. */
  addBlocks(area: Area): RefcountBlock[] {
    const { clusterSize, refcountBlockEntries: entries } = this.#geometry;
    const added: RefcountBlock[] = [];
    let left = area.count + area.blocks;
    for (let index = area.firstBlock; index < area.firstBlock + area.blocks; index++) {
      const bytes = new Uint8Array(clusterSize);
      const used = Math.min(left, entries);
      for (let i = 0; i < used; i++) this.codec.set(bytes, i, 1);
      left -= used;
      const block = { index, bytes, fresh: true, dirty: { from: 0, to: clusterSize } };
      const offset = blockCluster(area, index) * clusterSize;
      writeRefcountTableEntry(viewOf(this.#table), index * 8, offset);
      this.#header.tables.set(offset, BLOCK);
      this.#blocks.set(index, block);
      added.push(block);
    }
    this.#describedBlocks = Math.max(this.#describedBlocks, area.firstBlock + area.blocks);
    return added;
  }

  /**
   * Moves the table to a place where it can be longer. Everything that the new one names is in the file before the
   * header names the new one, and that before the old one's clusters are free.
   *
   * @returns the clusters of the old one, which nothing names any more.
   */
  async growTable(): Promise<Run> {
    const { clusterSize, refcountBlockEntries } = this.#geometry;
    const { refcountTableOffset, refcountTableClusters } = this.#header.current;
    const growth = planTableGrowth(this.#table.length / 8, clusterSize, refcountBlockEntries);
    const length = growth.clusters * clusterSize;
    if (length > MAX_REFCOUNT_TABLE_BYTES) throw this.#tooLarge();
    this.checkPlace({ offset: growth.area.start * clusterSize, count: growth.clusters });
    await this.writeBack();
    const old = this.#table;
    const table = new Uint8Array(length);
    table.set(old);
    this.#table = table;
    const added = this.addBlocks(growth.area);
    const offset = growth.area.start * clusterSize;
    try {
      for (const block of added) await this.#writeBlock(block);
      await this.#file.write(offset, table);
      await this.#header.update({
        refcountTableOffset: offset,
        refcountTableClusters: growth.clusters,
      });
    } catch (error) {
      for (const { index } of added) {
        this.#header.tables.delete(this.#blockOffset(index));
        this.#blocks.delete(index);
      }
      this.#table = old;
      this.#describedBlocks = Math.min(this.#describedBlocks, growth.area.firstBlock);
      throw error;
    }
    for (const block of added) block.fresh = false;
    return { offset: refcountTableOffset, count: refcountTableClusters };
  }

  /** Changes refcount `index` of a block. */
  set(block: RefcountBlock, index: number, value: number): void {
    this.setEach(block, index, index + 1, () => value);
  }

  /** Changes refcounts of a block, from one to before another one; where `next` throws, those before are changed. */
  setEach(block: RefcountBlock, first: number, end: number, next: (index: number) => number): void {
    block.dirty = joinSpans(block.dirty, this.codec.bytesOf(first, end));
    for (let index = first; index < end; index++) this.codec.set(block.bytes, index, next(index));
  }

  /** Whether the file lacks anything that is known here. */
  get isDirty(): boolean {
    for (const { dirty } of this.#blocks.values()) if (dirty !== undefined) return true;
    return false;
  }

  /** Brings the file up to date. Flushes only where new blocks must be there before the table names them. */
  async writeBack(): Promise<void> {
    const fresh: RefcountBlock[] = [];
    for (const block of this.#blocks.values()) {
      if (block.fresh) fresh.push(block);
      await this.#writeBlock(block);
    }
    if (fresh.length === 0) return;
    await this.#file.flush();
    const { refcountTableOffset } = this.#header.current;
    for (const block of fresh) {
      const span = { from: block.index * 8, to: block.index * 8 + 8 };
      await this.#file.writeSpan(refcountTableOffset, this.#table, span);
      block.fresh = false;
    }
  }

  async #writeBlock(block: RefcountBlock): Promise<void> {
    if (block.dirty === undefined) return;
    await this.#file.writeSpan(this.#blockOffset(block.index), block.bytes, block.dirty);
    block.dirty = undefined;
  }

  /** The block with an index, if it is in memory. */
  known(index: number): RefcountBlock | undefined {
    return this.#blocks.get(index);
  }

  /** The block with an index; undefined where all that it would describe is free. */
  async block(index: number): Promise<RefcountBlock | undefined> {
    const known = this.#blocks.get(index);
    if (known !== undefined) {
      this.#blocks.delete(index);
      this.#blocks.set(index, known);
      return known;
    }
    const offset = index * 8 < this.#table.length ? this.#blockOffset(index) : 0;
    if (offset === 0) return undefined;
    const { clusterSize } = this.#geometry;
    const inside = Number.isSafeInteger(offset) && offset + clusterSize <= this.#file.end;
    if (offset % clusterSize !== 0 || !inside) {
      const found = `refcount block ${index} at ${offset}, which is no cluster of the file`;
      const { refcountTableOffset } = this.#header.current;
      throw corrupt(this.#file.name, found, refcountTableOffset + index * 8);
    }
    const bytes = new Uint8Array(clusterSize);
    await this.#file.read(offset, bytes);
    await this.#evict();
    const block = { index, bytes, fresh: false };
    this.#blocks.set(index, block);
    return block;
  }

  /** Makes room for one more block. Those that the table does not name yet stay. */
  async #evict(): Promise<void> {
    for (const block of this.#blocks.values()) {
      if (this.#blocks.size < this.#blockLimit) return;
      if (block.fresh) continue;
      await this.#writeBlock(block);
      this.#blocks.delete(block.index);
    }
  }

  #blockOffset(index: number): number {
    return readRefcountTableEntry(viewOf(this.#table), index * 8);
  }

  /** What is in use and yet counted as free must not be given out: the refcounts are wrong. */
  checkPlace({ offset, count }: Run): void {
    const end = offset + count * this.#geometry.clusterSize;
    if (end > MAX_HOST_OFFSET) throw this.#tooLarge();
    if (end > this.#file.room) {
      const message = `${this.#file.name} is full: it ends at ${this.#file.room} bytes and cannot grow. Make it larger, or discard what is not needed`;
      throw new LacunaError('ERR_DEVICE_IO', message, { device: this.#file.name, errno: 'ENOSPC' });
    }
    const found = this.#header.metadataIn(offset, end);
    if (found !== undefined) {
      throw corrupt(this.#file.name, `${found} in clusters that are counted as free`, offset);
    }
  }

  #tooLarge(): LacunaError {
    const message = `${this.#file.name} has no room for more clusters: its refcount table cannot grow any further. Copy the disk into an image with larger clusters`;
    return new LacunaError('ERR_DEVICE_IO', message, { device: this.#file.name, errno: 'EFBIG' });
  }
}
