import {
  corrupt,
  type Geometry,
  type Mapped,
  type MappingRules,
  readL1Entry,
  readMapped,
  UNMAPPED,
  viewOf,
  writeL1Entry,
  writeMapped,
} from '../../qcow2/index.js';
import { Serial } from '../../util/index.js';
import type { Allocator, Run } from './allocator.js';
import { type HostFile, joinSpans, type Span } from './host-file.js';
import type { LiveHeader } from './live-header.js';

/** L2 tables are kept up to this many bytes, and sixteen of them whatever they take. */
const CACHE_BYTES = 16 * 1024 * 1024;
const CACHE_TABLES = 16;
/** With so much of them changed, they are written without waiting for a flush. */
const DIRTY_SHARE = 0.5;

/** An L2 table in memory. */
export interface L2Table {
  readonly l1Index: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly offset: number;
  /** What the file does not have yet. */
  dirty?: Span;
  /** The L1 table in the file does not name it yet. */
  fresh: boolean;
  /** Is being written: what the file holds is older. */
  leaving: boolean;
}

/** What the file lacks of the mapping, as it was at one moment. */
export interface MappingChanges {
  readonly tables: readonly TableChange[];
  /** Entries of the L1 table, one for each fresh table. */
  readonly l1: readonly SpanChange[];
}

/** A changed part of a table, in whole sectors. */
export interface SpanChange {
  readonly span: Span;
  readonly sectors: Uint8Array;
}

export interface TableChange extends SpanChange {
  readonly table: L2Table;
  readonly fresh: boolean;
}

/**
 * The active L1 and L2 tables of an image that is being written. They change in memory; `takeChanges` hands out what
 * must go to the file, and in which order is the committer's business.
 */
export class Mapping {
  readonly geometry: Geometry;
  readonly #file: HostFile;
  readonly #header: LiveHeader;
  readonly #allocator: Allocator;
  readonly #rules: MappingRules;
  readonly #tables = new Map<number, L2Table>();
  /** L1 entries whose tables are about to be changed, and by how many: they stay in memory, or all would wait in turn. */
  readonly #wanted = new Map<number, number>();
  readonly #loading = new Map<number, Promise<L2Table>>();
  readonly #tableLimit: number;
  readonly #turns = new Serial();
  /** Clusters that the tables in memory do not name any more, and those in the file perhaps do. */
  #unlinked: Run[] = [];
  #l1: Uint8Array;

  private constructor(
    file: HostFile,
    header: LiveHeader,
    allocator: Allocator,
    rules: MappingRules,
    l1: Uint8Array,
  ) {
    this.geometry = header.geometry;
    this.#file = file;
    this.#header = header;
    this.#allocator = allocator;
    this.#rules = rules;
    this.#l1 = l1;
    this.#tableLimit = Math.max(CACHE_TABLES, CACHE_BYTES / this.geometry.clusterSize);
  }

  static async open(
    file: HostFile,
    header: LiveHeader,
    allocator: Allocator,
    rules: MappingRules,
  ): Promise<Mapping> {
    const { l1Offset, l1Size } = header.current;
    const l1 = new Uint8Array(l1Size * 8);
    // QEMU makes files that end inside their L1 table, but none that ends a cluster before it.
    if (l1.length > 0 && l1Offset >= file.end + header.geometry.clusterSize) {
      throw corrupt(file.name, `the L1 table at ${l1Offset}, behind the end of the file`, 40);
    }
    if (l1.length > 0) await file.read(l1Offset, l1);
    return new Mapping(file, header, allocator, rules, l1);
  }

  /** The index in the L1 table, and the byte in the L2 table, of a guest cluster. */
  placeOf(offset: number): { l1Index: number; at: number } {
    const l1Index = Math.floor(offset / this.geometry.l2Span);
    const within = Math.floor(
      (offset - l1Index * this.geometry.l2Span) / this.geometry.clusterSize,
    );
    return { l1Index, at: within * this.geometry.l2EntryBytes };
  }

  /** Whether there is no L2 table, and so nothing mapped. */
  isEmpty(l1Index: number): boolean {
    return this.tableAt(l1Index) === 0;
  }

  /** Where the L2 table of an L1 entry is; 0 where there is none. */
  tableAt(l1Index: number): number {
    return l1Index * 8 < this.#l1.length ? this.#l1Entry(l1Index).offset : 0;
  }

  /** The first L1 entry from `l1Index` on that has an L2 table; `end` where there is none before it. */
  nextUsed(l1Index: number, end: number): number {
    const view = viewOf(this.#l1);
    const stop = Math.min(end, this.#l1.length / 8);
    for (let index = l1Index; index < stop; index++) {
      if (view.getUint32(index * 8 + 4) !== 0 || view.getUint32(index * 8) !== 0) return index;
    }
    return end;
  }

  /** The L2 table of an L1 entry as it is now, at once where it is in memory. Not to be changed. */
  l2(l1Index: number): DataView | Promise<DataView> {
    const known = this.#tables.get(l1Index);
    return known?.view ?? this.#table(l1Index).then(({ view }) => view);
  }

  /** How guest clusters in a row are mapped, from the one at `offset` on; all in one L2 table. */
  async lookUp(offset: number, count: number): Promise<Mapped[]> {
    const { l1Index, at } = this.placeOf(offset);
    if (this.isEmpty(l1Index)) return Array.from({ length: count }, () => UNMAPPED);
    const table = await this.#table(l1Index);
    const { l2EntryBytes } = this.geometry;
    return Array.from({ length: count }, (_, i) =>
      readMapped(table.bytes, at + i * l2EntryBytes, this.#rules, table.offset),
    );
  }

  /**
   * Maps guest clusters in a row anew, from the one at `offset` on, all in one L2 table, which is made or copied where
   * it must be. Clusters of the file that are not named any more are free after the next commit.
   *
   * @param count guest clusters.
   * @param remap takes how one of them is mapped, and its number from 0 on; answers how it shall be.
   */
  async change(
    offset: number,
    count: number,
    remap: (mapped: Mapped, index: number) => Mapped,
  ): Promise<void> {
    const { l1Index, at } = this.placeOf(offset);
    this.#wanted.set(l1Index, (this.#wanted.get(l1Index) ?? 0) + 1);
    try {
      let table = this.#writable(l1Index);
      for (; table === undefined; table = this.#writable(l1Index)) await this.#prepare(l1Index);
      this.#remap(table, at, count, remap);
    } finally {
      const others = this.#wanted.get(l1Index)! - 1;
      if (others > 0) this.#wanted.set(l1Index, others);
      else this.#wanted.delete(l1Index);
    }
  }

  /** Whether enough has changed to be written without waiting for a flush. */
  get isFull(): boolean {
    if (this.#unlinked.length > 4096) return true;
    let dirty = 0;
    for (const table of this.#tables.values()) if (table.dirty !== undefined) dirty++;
    return dirty > this.#tableLimit * DIRTY_SHARE;
  }

  /** What the file lacks now. Each call must be followed by `settle`. */
  takeChanges(): MappingChanges {
    const tables: TableChange[] = [];
    const l1: SpanChange[] = [];
    for (const table of this.#tables.values()) {
      if (table.dirty === undefined) continue;
      const { fresh, dirty: span } = table;
      tables.push({ table, span, fresh, sectors: this.#file.sectorsOf(table.bytes, span).slice() });
      if (fresh) {
        const entry = { from: table.l1Index * 8, to: table.l1Index * 8 + 8 };
        l1.push({ span: entry, sectors: this.#file.sectorsOf(this.#l1, entry).slice() });
      }
      table.dirty = undefined;
      table.fresh = false;
      table.leaving = true;
    }
    return { tables, l1 };
  }

  /** Says whether changes are in the file now, or must be handed out again. */
  settle(changes: MappingChanges, written: boolean): void {
    for (const { table, span, fresh } of changes.tables) {
      table.leaving = false;
      if (written) continue;
      table.dirty = joinSpans(table.dirty, span);
      table.fresh = fresh;
    }
  }

  /** Clusters that nothing names any more once the changes taken now are durable. */
  takeUnlinked(): Run[] {
    const unlinked = this.#unlinked;
    this.#unlinked = [];
    return unlinked;
  }

  /** Hands clusters back that were taken, because the changes are not durable. */
  keepUnlinked(runs: readonly Run[]): void {
    for (const run of runs) this.#unlinked.push(run);
  }

  /**
   * Makes the L1 table long enough; the header names the new one when this returns.
   *
   * @param commit must bring all changes into the file: the new L1 table may name no table that is not there. None is
   * made meanwhile.
   */
  growL1(entries: number, commit: () => Promise<void>): Promise<void> {
    return this.#turns.run(async () => {
      await commit();
      const { l1Offset } = this.#header.current;
      const { clusterSize } = this.geometry;
      const before = this.#l1;
      if (entries * 8 <= before.length) return;
      const l1 = new Uint8Array(entries * 8);
      const clusters = Math.ceil(l1.length / clusterSize);
      const { offset } = await this.#allocator.allocateTogether(clusters);
      l1.set(before);
      const padded = new Uint8Array(clusters * clusterSize);
      padded.set(l1);
      await this.#allocator.writeBack();
      await this.#file.write(offset, padded);
      await this.#header.update({ l1Offset: offset, l1Size: entries });
      this.#l1 = l1;
      const count = Math.ceil(before.length / clusterSize);
      if (count > 0) await this.#allocator.release([{ offset: l1Offset, count }]);
    });
  }

  #remap(
    table: L2Table,
    at: number,
    count: number,
    remap: (mapped: Mapped, index: number) => Mapped,
  ): void {
    const { l2EntryBytes } = this.geometry;
    for (let i = 0; i < count; i++) {
      const place = at + i * l2EntryBytes;
      const before = readMapped(table.bytes, place, this.#rules, table.offset);
      const after = remap(before, i);
      if (after === before) continue;
      writeMapped(table.bytes, place, after, this.geometry);
      table.dirty = joinSpans(table.dirty, { from: place, to: place + l2EntryBytes });
      this.#unlink(before, after);
    }
  }

  /** The L2 table of an entry, if it is in memory and its own: it may be changed at once. */
  #writable(l1Index: number): L2Table | undefined {
    return this.#l1Entry(l1Index).copied ? this.#tables.get(l1Index) : undefined;
  }

  /** Makes an L2 table where there is none, copies one that is shared with a snapshot, and loads it. */
  async #prepare(l1Index: number): Promise<void> {
    if (this.#l1Entry(l1Index).copied) await this.#table(l1Index);
    else await this.#turns.run(() => this.#replaceTable(l1Index));
  }

  async #replaceTable(l1Index: number): Promise<void> {
    const { offset: before, copied } = this.#l1Entry(l1Index);
    if (copied) return;
    const old = before === 0 ? undefined : await this.#table(l1Index);
    const { offset } = await this.#allocator.allocate(1);
    await this.#evict();
    const bytes = old?.bytes.slice() ?? new Uint8Array(this.geometry.clusterSize);
    this.#keep({
      ...tableOf(l1Index, bytes, offset),
      fresh: true,
      dirty: { from: 0, to: bytes.length },
    });
    writeL1Entry(viewOf(this.#l1), l1Index * 8, { offset, copied: true });
    if (before !== 0) this.#unlinked.push({ offset: before, count: 1 });
  }

  #unlink(before: Mapped, after: Mapped): void {
    const { clusterSize } = this.geometry;
    if (this.#rules.dataFile) return;
    if (before.compressed !== undefined) {
      const { offset, length } = before.compressed;
      const first = Math.floor(offset / clusterSize);
      const last = Math.floor((offset + length - 1) / clusterSize);
      this.#unlinked.push({ offset: first * clusterSize, count: last - first + 1 });
    } else if (before.host !== undefined && before.host !== after.host) {
      this.#unlinked.push({ offset: before.host, count: 1 });
    }
  }

  #l1Entry(l1Index: number) {
    return readL1Entry(viewOf(this.#l1), l1Index * 8);
  }

  /** The table of an L1 entry that is not empty. */
  #table(l1Index: number): Promise<L2Table> {
    const known = this.#tables.get(l1Index);
    if (known !== undefined) {
      this.#tables.delete(l1Index);
      this.#tables.set(l1Index, known);
      return Promise.resolve(known);
    }
    let loading = this.#loading.get(l1Index);
    if (loading === undefined) {
      loading = this.#load(l1Index).finally(() => this.#loading.delete(l1Index));
      this.#loading.set(l1Index, loading);
    }
    return loading;
  }

  async #load(l1Index: number): Promise<L2Table> {
    const { offset } = this.#l1Entry(l1Index);
    if (offset % this.geometry.clusterSize !== 0 || !Number.isSafeInteger(offset)) {
      const at = this.#header.current.l1Offset + l1Index * 8;
      throw corrupt(
        this.#file.name,
        `an L2 table at ${offset}, which is no start of a cluster`,
        at,
      );
    }
    const bytes = new Uint8Array(this.geometry.clusterSize);
    const found = this.#header.metadataIn(offset, offset + bytes.length);
    if (found !== undefined) throw corrupt(this.#file.name, `${found} in an L2 table`, offset);
    if (offset + bytes.length > this.#file.end) {
      throw corrupt(
        this.#file.name,
        `an L2 table at ${offset}, behind the end of the file`,
        offset,
      );
    }
    await this.#file.read(offset, bytes);
    this.#evict();
    return this.#keep(tableOf(l1Index, bytes, offset));
  }

  #keep(table: L2Table): L2Table {
    this.#drop(table.l1Index);
    this.#tables.set(table.l1Index, table);
    this.#header.tables.set(table.offset, 'an L2 table');
    return table;
  }

  #drop(l1Index: number): void {
    const table = this.#tables.get(l1Index);
    if (table === undefined) return;
    this.#tables.delete(l1Index);
    this.#header.tables.delete(table.offset);
  }

  /** Makes room for one more table among those that the file has as they are. */
  #evict(): void {
    if (this.#tables.size < this.#tableLimit) return;
    for (const table of this.#tables.values()) {
      if (table.dirty !== undefined || table.fresh || table.leaving) continue;
      if (this.#wanted.has(table.l1Index)) continue;
      this.#drop(table.l1Index);
      if (this.#tables.size < this.#tableLimit) return;
    }
  }
}

function tableOf(l1Index: number, bytes: Uint8Array, offset: number): L2Table {
  return { l1Index, bytes, view: viewOf(bytes), offset, fresh: false, leaving: false };
}
