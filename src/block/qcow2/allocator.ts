import { LacunaError } from '../../errors/index.js';
import {
  type Area,
  blockCluster,
  corrupt,
  type Geometry,
  MAX_HOST_OFFSET,
  MAX_REFCOUNT_TABLE_BYTES,
  planArea,
  planTableGrowth,
  RefcountCodec,
  readRefcountTableEntry,
  viewOf,
  writeRefcountTableEntry,
} from '../../qcow2/index.js';
import { alignUp, Serial } from '../../util/index.js';
import { type HostFile, joinSpans, type Span } from './host-file.js';
import type { LiveHeader } from './live-header.js';

/** Refcount blocks are kept up to this many bytes, and eight of them whatever they take. */
const CACHE_BYTES = 8 * 1024 * 1024;
const CACHE_BLOCKS = 8;

const BLOCK = 'a refcount block';

/** A refcount block in memory. */
interface Block {
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
 * Gives out clusters of an image and takes them back: the only place where refcounts change.
 *
 * Refcounts change in memory and go to the file in batches. They may go there at any time: one that is too high only
 * leaks a cluster. The other direction is the caller's to keep: nothing refers to a new cluster before `writeBack` and
 * a flush, and `release` takes what nothing in the file refers to any more.
 */
export class Allocator {
  readonly #file: HostFile;
  readonly #header: LiveHeader;
  readonly #geometry: Geometry;
  readonly #codec: RefcountCodec;
  readonly #blocks = new Map<number, Block>();
  readonly #blockLimit: number;
  readonly #turns = new Serial();
  #table: Uint8Array;
  /** Entries of the table up to the last one that names a block. */
  #describedBlocks: number;
  /** No cluster with a lower number is free. */
  #lowest = 0;
  /** First byte behind what was packed last, inside a cluster; 0 where the next one begins in a new cluster. */
  #packed = 0;

  private constructor(file: HostFile, header: LiveHeader, table: Uint8Array) {
    this.#file = file;
    this.#header = header;
    this.#geometry = header.geometry;
    this.#codec = new RefcountCodec(header.current.refcountOrder);
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

  static async open(file: HostFile, header: LiveHeader): Promise<Allocator> {
    const { refcountTableOffset, refcountTableClusters } = header.current;
    const table = new Uint8Array(refcountTableClusters * header.geometry.clusterSize);
    if (table.length === 0) throw corrupt(file.name, 'no refcount table', 56);
    if (refcountTableOffset >= file.end) {
      const found = `the refcount table at ${refcountTableOffset}, behind the end of the file`;
      throw corrupt(file.name, found, 48);
    }
    await file.read(refcountTableOffset, table);
    return new Allocator(file, header, table);
  }

  /** First byte of the file whose refcount no block keeps: what is in use lies before it. */
  get end(): number {
    return this.#describedBlocks * this.#geometry.refcountBlockEntries * this.#geometry.clusterSize;
  }

  /** Takes the first free clusters: at least one, at most `most`, in a row. */
  allocate(most: number): Promise<Run> {
    return this.#turns.run(() => this.#allocate(most));
  }

  /** Takes `count` clusters in a row. */
  allocateTogether(count: number): Promise<Run> {
    return this.#turns.run(async () => {
      const run = await this.#allocate(count);
      if (run.count === count) return run;
      await this.#release(run);
      return this.#allocateBehindAll(count);
    });
  }

  /**
   * Takes room for compressed clusters: each begins where the one before it ends, if there is room. A cluster of the file
   * is counted once for each of them that it holds a part of.
   *
   * @param lengths bytes; each shorter than a cluster.
   * @returns where they begin.
   */
  pack(lengths: readonly number[]): Promise<number[]> {
    return this.#turns.run(async () => {
      const offsets: number[] = [];
      for (const length of lengths) offsets.push(await this.#pack(length));
      return offsets;
    });
  }

  /**
   * Lets what is packed next begin in a sector of its own.
   *
   * @returns the bytes in between, which belong to nobody; undefined where there are none.
   */
  endPacked(unit: number): Promise<Span | undefined> {
    return this.#turns.run(async () => {
      const from = this.#packed;
      const to = alignUp(from, unit);
      if (from === to) return undefined;
      this.#packed = to % this.#geometry.clusterSize === 0 ? 0 : to;
      return { from, to };
    });
  }

  /** Takes one reference from each cluster of each run. Those that had only one are free, and their space is given back. */
  release(runs: readonly Run[]): Promise<void> {
    return this.#turns.run(async () => {
      for (const run of runs) await this.#release(run);
    });
  }

  /** Whether the file lacks anything that is known here. */
  get isDirty(): boolean {
    for (const { dirty } of this.#blocks.values()) if (dirty !== undefined) return true;
    return false;
  }

  /** Brings the file up to date. Flushes only where new blocks must be there before the table names them. */
  writeBack(): Promise<void> {
    return this.#turns.run(() => this.#writeBack());
  }

  async #allocate(most: number): Promise<Run> {
    const { refcountBlockEntries: entries, clusterSize } = this.#geometry;
    for (;;) {
      const index = Math.floor(this.#lowest / entries);
      const block = await this.#blockFor(index);
      const from = this.#codec.nextFree(block.bytes, this.#lowest % entries, entries);
      this.#lowest = index * entries + from;
      if (from === entries) continue;
      const to = this.#codec.nextUsed(block.bytes, from, Math.min(entries, from + most));
      const run = { offset: this.#lowest * clusterSize, count: to - from };
      this.#checkPlace(run);
      for (let i = from; i < to; i++) this.#setRefcount(block, i, 1);
      this.#lowest += run.count;
      return run;
    }
  }

  async #pack(length: number): Promise<number> {
    const { clusterSize, refcountBlockEntries: entries } = this.#geometry;
    const cluster = Math.floor(this.#packed / clusterSize);
    const room = clusterSize - (this.#packed % clusterSize);
    // Only a new cluster has no references yet; nobody else allocates or releases meanwhile.
    const block = this.#packed === 0 ? undefined : await this.#block(Math.floor(cluster / entries));
    const refcount = block === undefined ? 0 : this.#codec.get(block.bytes, cluster % entries);
    let offset = block !== undefined && refcount < this.#codec.maximum ? this.#packed : 0;
    if (offset === 0 || room < length) {
      const next = (await this.#allocate(1)).offset;
      if (next !== (cluster + 1) * clusterSize) offset = 0;
      if (offset === 0) offset = next;
    }
    if (Math.floor(offset / clusterSize) === cluster) await this.#addReference(cluster);
    const end = offset + length;
    this.#packed = end % clusterSize === 0 ? 0 : end;
    return offset;
  }

  async #addReference(cluster: number): Promise<void> {
    const { refcountBlockEntries: entries } = this.#geometry;
    const block = (await this.#block(Math.floor(cluster / entries)))!;
    const index = cluster % entries;
    this.#setRefcount(block, index, this.#codec.get(block.bytes, index) + 1);
  }

  /** The block with an index, made where there is none yet. */
  async #blockFor(index: number): Promise<Block> {
    if (index * 8 >= this.#table.length) await this.#growTable();
    return (await this.#block(index)) ?? this.#addBlock(index);
  }

  /** A new block, in the first of the clusters that it describes. */
  #addBlock(index: number): Block {
    const { clusterSize, refcountBlockEntries } = this.#geometry;
    const area = planArea(index, 0, refcountBlockEntries);
    this.#checkPlace({ offset: area.start * clusterSize, count: 1 });
    return this.#addBlocks(area)[0];
  }

  /** Adds the blocks of an area to the table in memory, and counts all of its clusters. */
  #addBlocks(area: Area): Block[] {
    const { clusterSize, refcountBlockEntries: entries } = this.#geometry;
    const added: Block[] = [];
    let left = area.count + area.blocks;
    for (let index = area.firstBlock; index < area.firstBlock + area.blocks; index++) {
      const bytes = new Uint8Array(clusterSize);
      const used = Math.min(left, entries);
      for (let i = 0; i < used; i++) this.#codec.set(bytes, i, 1);
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

  async #allocateBehindAll(count: number): Promise<Run> {
    const { clusterSize, refcountBlockEntries } = this.#geometry;
    for (;;) {
      const area = planArea(this.#describedBlocks, count, refcountBlockEntries);
      if ((area.firstBlock + area.blocks) * 8 <= this.#table.length) {
        this.#checkPlace({ offset: area.start * clusterSize, count: count + area.blocks });
        this.#addBlocks(area);
        return { offset: area.start * clusterSize, count };
      }
      await this.#growTable();
    }
  }

  /**
   * Moves the table to a place where it can be longer. Everything that the new one names is in the file before the
   * header names the new one, and that before the old one's clusters are free.
   */
  async #growTable(): Promise<void> {
    const { clusterSize, refcountBlockEntries } = this.#geometry;
    const { refcountTableOffset, refcountTableClusters } = this.#header.current;
    const growth = planTableGrowth(this.#table.length / 8, clusterSize, refcountBlockEntries);
    const length = growth.clusters * clusterSize;
    if (length > MAX_REFCOUNT_TABLE_BYTES) throw this.#tooLarge();
    this.#checkPlace({ offset: growth.area.start * clusterSize, count: growth.clusters });
    await this.#writeBack();
    const old = this.#table;
    const table = new Uint8Array(length);
    table.set(old);
    this.#table = table;
    const added = this.#addBlocks(growth.area);
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
    await this.#release({ offset: refcountTableOffset, count: refcountTableClusters });
  }

  async #release({ offset, count }: Run): Promise<void> {
    const { clusterSize, refcountBlockEntries: entries } = this.#geometry;
    const end = offset / clusterSize + count;
    // A damaged table named what is needed: that leaks rather than being given out, and its bytes given up.
    if (this.#header.metadataIn(offset, end * clusterSize) !== undefined) return;
    for (let cluster = offset / clusterSize; cluster < end; ) {
      const index = Math.floor(cluster / entries);
      const block = await this.#block(index);
      const last = Math.min(end, (index + 1) * entries);
      if (block !== undefined) await this.#releaseIn(block, cluster, last);
      cluster = last;
    }
  }

  /** Takes one reference from clusters that one block describes. */
  async #releaseIn(block: Block, first: number, end: number): Promise<void> {
    const { clusterSize, refcountBlockEntries: entries } = this.#geometry;
    for (let cluster = first; cluster < end; ) {
      let single = cluster;
      while (single < end && this.#codec.get(block.bytes, single % entries) === 1) single++;
      if (single > cluster) {
        // Before it can be given out again, or what is written then would go with it.
        await this.#file.discard(cluster * clusterSize, (single - cluster) * clusterSize);
        for (let i = cluster; i < single; i++) this.#setRefcount(block, i % entries, 0);
        const packed = Math.floor(this.#packed / clusterSize);
        if (packed >= cluster && packed < single) this.#packed = 0;
        this.#lowest = Math.min(this.#lowest, cluster);
        cluster = single;
        continue;
      }
      // What is free already has been counted too low, and only a check can tell by whom.
      const refcount = this.#codec.get(block.bytes, cluster % entries);
      if (refcount > 1 && Number.isSafeInteger(refcount)) {
        this.#setRefcount(block, cluster % entries, refcount - 1);
      }
      cluster++;
    }
  }

  #setRefcount(block: Block, index: number, value: number): void {
    this.#codec.set(block.bytes, index, value);
    block.dirty = joinSpans(block.dirty, this.#codec.bytesOf(index));
  }

  async #writeBack(): Promise<void> {
    const fresh: Block[] = [];
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

  async #writeBlock(block: Block): Promise<void> {
    if (block.dirty === undefined) return;
    await this.#file.writeSpan(this.#blockOffset(block.index), block.bytes, block.dirty);
    block.dirty = undefined;
  }

  /** The block with an index; undefined where all that it would describe is free. */
  async #block(index: number): Promise<Block | undefined> {
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
  #checkPlace({ offset, count }: Run): void {
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
