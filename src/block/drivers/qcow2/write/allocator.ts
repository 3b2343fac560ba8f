import {
  corrupt,
  type Geometry,
  planArea,
  type RefcountCodec,
  unsupported,
} from '../../../../qcow2/index.js';
import { alignUp, Serial } from '../../../../util/index.js';
import type { HostFile, LiveHeader, Span } from '../io/index.js';
import { type RefcountBlock, RefcountBlocks, type Run } from './refcount-blocks.js';

export type { Run } from './refcount-blocks.js';

/** Clusters in a row that one block describes; undefined where there is none. */
interface PartOfRun {
  readonly block: RefcountBlock | undefined;
  /** Number of the block. */
  readonly index: number;
  /** Places of the refcounts in the block: the first, and behind the last. */
  readonly first: number;
  readonly end: number;
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
  readonly #blocks: RefcountBlocks;
  readonly #turns = new Serial();
  /** No cluster with a lower number is free. */
  #lowest = 0;
  /** First byte behind what was packed last, inside a cluster; 0 where the next one begins in a new cluster. */
  #packed = 0;

  private constructor(file: HostFile, header: LiveHeader, blocks: RefcountBlocks) {
    this.#file = file;
    this.#header = header;
    this.#geometry = header.geometry;
    this.#codec = blocks.codec;
    this.#blocks = blocks;
  }

  static async open(file: HostFile, header: LiveHeader): Promise<Allocator> {
    return new Allocator(file, header, await RefcountBlocks.open(file, header));
  }

  /** First byte of the file whose refcount no block keeps: what is in use lies before it. */
  get end(): number {
    const { refcountBlockEntries, clusterSize } = this.#geometry;
    return this.#blocks.described * refcountBlockEntries * clusterSize;
  }

  /**
   * Whether a cluster is in use that begins at a byte of the file or behind it; or that has that byte inside, unless it is
   * known to hold metadata.
   */
  isUsedFrom(offset: number): Promise<boolean> {
    return this.#turns.run(async () => {
      const { refcountBlockEntries: entries, clusterSize } = this.#geometry;
      const inside = offset % clusterSize !== 0;
      const isMetadata = inside && this.#header.metadataIn(offset - 1, offset) !== undefined;
      const first = isMetadata ? Math.ceil(offset / clusterSize) : Math.floor(offset / clusterSize);
      for (let index = Math.floor(first / entries); index < this.#blocks.described; index++) {
        const block = await this.#blocks.block(index);
        if (block === undefined) continue;
        const from = Math.max(0, first - index * entries);
        if (this.#codec.nextUsed(block.bytes, from, entries) < entries) return true;
      }
      return false;
    });
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
      await this.#free(run);
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
  free(runs: readonly Run[]): Promise<void> {
    return this.#turns.run(async () => {
      for (const run of runs) await this.#free(run);
    });
  }

  /**
   * Adds one reference to each cluster of each run, all of which are in use.
   *
   * @throws LacunaError ERR_QCOW2_UNSUPPORTED where one cannot be counted once more; those before it are.
   */
  addReferences(runs: readonly Run[]): Promise<void> {
    return this.#each(runs, (part) => {
      const { block, first, end } = part;
      // Without a block none of them is counted.
      if (block === undefined) this.#countedOnce(part, first);
      else this.#blocks.setEach(block, first, end, (index) => this.#countedOnce(part, index) + 1);
    });
  }

  /**
   * Looks whether {@link addReferences} could begin, as far as that can be known without doing it. Nothing is changed.
   *
   * @throws LacunaError ERR_QCOW2_UNSUPPORTED as that; ERR_QCOW2_CORRUPT where one is counted as free.
   */
  checkReferences(runs: readonly Run[]): Promise<void> {
    return this.#each(runs, (part) => {
      for (let index = part.first; index < part.end; index++) this.#countedOnce(part, index);
    });
  }

  /** References to the cluster that begins at a byte of the file, as they are counted; at once where that is in memory. */
  refcountAt(offset: number): number | Promise<number> {
    const { clusterSize, refcountBlockEntries: entries } = this.#geometry;
    const cluster = offset / clusterSize;
    const index = Math.floor(cluster / entries);
    const known = this.#blocks.known(index);
    if (known !== undefined) return this.#codec.get(known.bytes, cluster % entries);
    return this.#turns.run(async () => {
      const block = await this.#blocks.block(index);
      return block === undefined ? 0 : this.#codec.get(block.bytes, cluster % entries);
    });
  }

  /** Visits the parts of each run, each in one block. */
  #each(runs: readonly Run[], visit: (part: PartOfRun) => void): Promise<void> {
    const { clusterSize, refcountBlockEntries: entries } = this.#geometry;
    return this.#turns.run(async () => {
      for (const { offset, count } of runs) {
        const end = offset / clusterSize + count;
        for (let cluster = offset / clusterSize; cluster < end; ) {
          const index = Math.floor(cluster / entries);
          const block = this.#blocks.known(index) ?? (await this.#blocks.block(index));
          const stop = Math.min(end, (index + 1) * entries);
          visit({ block, index, first: cluster % entries, end: stop - index * entries });
          cluster = stop;
        }
      }
    });
  }

  /** The refcount of a cluster that is in use, and can be used once more. */
  #countedOnce({ block, index: blockIndex }: PartOfRun, index: number): number {
    const { name } = this.#file;
    const refcount = block === undefined ? 0 : this.#codec.get(block.bytes, index);
    if (refcount === 0) {
      const { clusterSize, refcountBlockEntries } = this.#geometry;
      const offset = (blockIndex * refcountBlockEntries + index) * clusterSize;
      throw corrupt(name, 'a cluster in use that is counted as free', offset);
    }
    if (refcount < this.#codec.maximum && Number.isSafeInteger(refcount)) return refcount;
    const { refcountBits } = this.#geometry;
    const needed = `has refcounts of ${refcountBits} bits, and a cluster that is used ${refcount} times already`;
    const advice = 'delete snapshots, or copy the disk into an image with wider refcounts';
    throw unsupported(name, needed, advice);
  }

  /** Whether the file lacks anything that is known here. */
  get isDirty(): boolean {
    return this.#blocks.isDirty;
  }

  /** Brings the file up to date. Flushes only where new blocks must be there before the table names them. */
  writeBack(): Promise<void> {
    return this.#turns.run(() => this.#blocks.writeBack());
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
      this.#blocks.checkPlace(run);
      this.#blocks.setEach(block, from, to, () => 1);
      this.#lowest += run.count;
      return run;
    }
  }

  async #pack(length: number): Promise<number> {
    const { clusterSize, refcountBlockEntries: entries } = this.#geometry;
    const cluster = Math.floor(this.#packed / clusterSize);
    const room = clusterSize - (this.#packed % clusterSize);
    // Only a new cluster has no references yet; nobody else allocates or releases meanwhile.
    const block =
      this.#packed === 0 ? undefined : await this.#blocks.block(Math.floor(cluster / entries));
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
    const block = (await this.#blocks.block(Math.floor(cluster / entries)))!;
    const index = cluster % entries;
    this.#blocks.set(block, index, this.#codec.get(block.bytes, index) + 1);
  }

  /** The block with an index, made where there is none yet. */
  async #blockFor(index: number): Promise<RefcountBlock> {
    if (index >= this.#blocks.room) await this.#growTable();
    return (await this.#blocks.block(index)) ?? this.#blocks.addBlock(index);
  }

  async #allocateBehindAll(count: number): Promise<Run> {
    const { clusterSize, refcountBlockEntries } = this.#geometry;
    for (;;) {
      const area = planArea(this.#blocks.described, count, refcountBlockEntries);
      if (area.firstBlock + area.blocks <= this.#blocks.room) {
        this.#blocks.checkPlace({ offset: area.start * clusterSize, count: count + area.blocks });
        this.#blocks.addBlocks(area);
        return { offset: area.start * clusterSize, count };
      }
      await this.#growTable();
    }
  }

  async #growTable(): Promise<void> {
    await this.#free(await this.#blocks.growTable());
  }

  async #free({ offset, count }: Run): Promise<void> {
    const { clusterSize, refcountBlockEntries: entries } = this.#geometry;
    const end = offset / clusterSize + count;
    // A damaged table named what is needed: that leaks rather than being given out, and its bytes given up.
    if (this.#header.metadataIn(offset, end * clusterSize) !== undefined) return;
    for (let cluster = offset / clusterSize; cluster < end; ) {
      const index = Math.floor(cluster / entries);
      const block = await this.#blocks.block(index);
      const last = Math.min(end, (index + 1) * entries);
      if (block !== undefined) await this.#freeIn(block, cluster, last);
      cluster = last;
    }
  }

  /** Takes one reference from clusters that one block describes. */
  async #freeIn(block: RefcountBlock, first: number, end: number): Promise<void> {
    const { clusterSize, refcountBlockEntries: entries } = this.#geometry;
    for (let cluster = first; cluster < end; ) {
      let single = cluster;
      while (single < end && this.#codec.get(block.bytes, single % entries) === 1) single++;
      if (single > cluster) {
        // Before it can be given out again, or what is written then would go with it.
        await this.#file.discard(cluster * clusterSize, (single - cluster) * clusterSize);
        const first = cluster % entries;
        this.#blocks.setEach(block, first, first + single - cluster, () => 0);
        const packed = Math.floor(this.#packed / clusterSize);
        if (packed >= cluster && packed < single) this.#packed = 0;
        this.#lowest = Math.min(this.#lowest, cluster);
        cluster = single;
        continue;
      }
      const counted = (index: number) => this.#codec.get(block.bytes, index);
      let shared = cluster;
      while (shared < end && isShared(counted(shared % entries))) shared++;
      if (shared > cluster) {
        const first = cluster % entries;
        this.#blocks.setEach(block, first, first + shared - cluster, (i) => counted(i) - 1);
      }
      // What is free already has been counted too low, and only a check can tell by whom.
      cluster = Math.max(shared, cluster + 1);
    }
  }
}

/** Whether several refer to a cluster, by its refcount. */
function isShared(refcount: number): boolean {
  return refcount > 1 && Number.isSafeInteger(refcount);
}
