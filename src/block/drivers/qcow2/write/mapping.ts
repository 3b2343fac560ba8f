import {
  cutShort,
  type Geometry,
  type Mapped,
  type MappingRules,
  readL1Entry,
  readMapped,
  UNMAPPED,
  writeL1Entry,
  writeMapped,
} from '../../../../qcow2/index.js';
import { Serial, viewOf } from '../../../../util/index.js';
import { type HostFile, joinSpans, type LiveHeader } from '../io/index.js';
import type { Allocator, Run } from './allocator.js';
import { type L2Table, L2Tables, type SpanChange, type TableChange } from './l2-tables.js';
import { referenceOf, referencesOf } from './table-references.js';

/** What the file lacks of the mapping, as it was at one moment. */
export interface MappingChanges {
  readonly tables: readonly TableChange[];
  /** Entries of the L1 table, one for each fresh table. */
  readonly l1: readonly SpanChange[];
}

/**
 * The active L1 and L2 tables of an image that is being written. They change in memory; `takeChanges` hands out what
 * must go to the file, and in which order is the business of {@link ImageFlusher}.
 */
export class Mapping {
  readonly geometry: Geometry;
  readonly #file: HostFile;
  readonly #header: LiveHeader;
  readonly #allocator: Allocator;
  readonly #rules: MappingRules;
  readonly #tables: L2Tables;
  readonly #turns = new Serial();
  /** Clusters that the tables in memory do not name any more, and those in the file perhaps do. */
  #unlinked: Run[] = [];
  /**
   * In one piece, since sectors of it are written and it grows. The L1Table of the reading half, which has pages, checks
   * each entry and may be cut short, is let go once this one is followed.
   */
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
    this.#tables = new L2Tables(file, header);
  }

  static async open(
    file: HostFile,
    header: LiveHeader,
    allocator: Allocator,
    rules: MappingRules,
  ): Promise<Mapping> {
    const { l1Offset, l1Size } = header.current;
    const l1 = new Uint8Array(l1Size * 8);
    if (l1.length > 0 && l1Offset + l1.length > file.end) {
      throw cutShort(file.name, 'the L1 table', { offset: l1Offset, end: file.end });
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
    return this.#tables.known(l1Index)?.view ?? this.#table(l1Index).then(({ view }) => view);
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
   * it must be. Clusters of the file that are not named any more are free after the next flush.
   *
   * @param count guest clusters.
   * @param remap takes how one of them is mapped, and its number from 0 on; answers how it shall be.
   */
  async change(
    offset: number,
    count: number,
    remap: (mapped: Mapped, index: number) => Mapped,
  ): Promise<void> {
    await this.#changeTable(offset, (table, at) => this.#remap(table, at, count, remap));
  }

  /** Maps guest clusters as {@link change} does, all of them alike; nothing may be mapped there yet. */
  async fill(offset: number, count: number, mapped: Mapped): Promise<void> {
    await this.#changeTable(offset, (table, at) => {
      const { l2EntryBytes } = this.geometry;
      const to = at + count * l2EntryBytes;
      writeMapped(table.bytes, at, mapped, this.geometry);
      for (let done = at + l2EntryBytes; done < to; done += done - at) {
        table.bytes.copyWithin(done, at, Math.min(done, at + to - done));
      }
      table.dirty = joinSpans(table.dirty, { from: at, to });
    });
  }

  async #changeTable(offset: number, change: (table: L2Table, at: number) => void): Promise<void> {
    const { l1Index, at } = this.placeOf(offset);
    this.#tables.hold(l1Index);
    try {
      let table = this.#writable(l1Index);
      for (; table === undefined; table = this.#writable(l1Index)) await this.#prepare(l1Index);
      change(table, at);
    } finally {
      this.#tables.release(l1Index);
    }
  }

  /** Whether enough has changed to be written without waiting for a flush. */
  get isFull(): boolean {
    return this.#unlinked.length > 4096 || this.#tables.isFull;
  }

  /** What the file lacks now. Each call must be followed by `settle`. */
  takeChanges(): MappingChanges {
    const tables = this.#tables.takeChanges();
    const l1: SpanChange[] = [];
    for (const { table, fresh } of tables) {
      if (!fresh) continue;
      const span = { from: table.l1Index * 8, to: table.l1Index * 8 + 8 };
      l1.push({ span, sectors: this.#file.sectorsOf(this.#l1, span).slice() });
    }
    return { tables, l1 };
  }

  /** Says whether changes are in the file now, or must be handed out again. */
  settle(changes: MappingChanges, written: boolean): void {
    this.#tables.settle(changes.tables, written);
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
   * @param flush must bring all changes into the file: the new L1 table may name no table that is not there. None is
   * made meanwhile.
   */
  growL1(entries: number, flush: () => Promise<void>): Promise<void> {
    return this.#turns.run(async () => {
      await flush();
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
      if (count > 0) await this.#allocator.free([{ offset: l1Offset, count }]);
    });
  }

  /**
   * Forgets the L1 entries from one on, and gives up what they refer to. A crash in between leaves all of it as it was, or
   * leaks some of it.
   *
   * @param entries that stay.
   * @param flush as for {@link growL1}.
   */
  cutL1(entries: number, flush: () => Promise<void>): Promise<void> {
    return this.#turns.run(async () => {
      await flush();
      const before = this.#l1;
      const end = before.length / 8;
      if (this.nextUsed(entries, end) === end) return;
      const l1 = before.slice();
      l1.fill(0, entries * 8);
      const { l1Offset } = this.#header.current;
      await this.#file.writeSpan(l1Offset, l1, { from: entries * 8, to: l1.length });
      await this.#file.flush();
      this.#l1 = l1;
      for (let index = entries; index < end; index++) {
        const { offset } = readL1Entry(viewOf(before), index * 8);
        if (offset !== 0) await this.#giveUpTable(index, offset);
      }
      await this.#allocator.writeBack();
    });
  }

  /** Takes the references of a table that nothing names any more, and of what it refers to. */
  async #giveUpTable(l1Index: number, offset: number): Promise<void> {
    const { bytes } = await this.#tables.table(l1Index, offset);
    const runs = referencesOf(bytes, offset, this.#rules);
    this.#tables.forget(l1Index);
    await this.#allocator.free([...runs, { offset, count: 1 }]);
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
    return this.#l1Entry(l1Index).copied ? this.#tables.known(l1Index) : undefined;
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
    const bytes = old?.bytes.slice() ?? new Uint8Array(this.geometry.clusterSize);
    this.#tables.add(l1Index, bytes, offset);
    writeL1Entry(viewOf(this.#l1), l1Index * 8, { offset, copied: true });
    if (before !== 0) this.#unlinked.push({ offset: before, count: 1 });
  }

  #unlink(before: Mapped, after: Mapped): void {
    const { dataFile } = this.#rules;
    if (before.compressed === undefined && before.host === after.host) return;
    const run = referenceOf(before, this.geometry, dataFile);
    if (run !== undefined) this.#unlinked.push(run);
  }

  #l1Entry(l1Index: number) {
    return readL1Entry(viewOf(this.#l1), l1Index * 8);
  }

  /** The table of an L1 entry that is not empty. */
  #table(l1Index: number): Promise<L2Table> {
    return this.#tables.table(l1Index, this.#l1Entry(l1Index).offset);
  }
}
