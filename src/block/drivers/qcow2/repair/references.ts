import { throwIfAborted } from '../../../../errors/index.js';
import {
  BitmapCluster,
  corrupt,
  cutShort,
  type Geometry,
  geometryOf,
  type Header,
  hasDataFile,
  MAX_HOST_OFFSET,
  type MappingRules,
  readL1Entry,
  readMapped,
  readRefcountTableEntry,
  type Snapshot,
  validBitmaps,
} from '../../../../qcow2/index.js';
import { Turns, viewOf } from '../../../../util/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { type BitmapSection, readBitmapSections, refuseOverlaps } from '../bitmaps/index.js';
import { readerOf, readSnapshotTable } from '../io/index.js';

/** What clusters are used for. Those of the first two may have several references; none may be of two kinds. */
export const Use = { data: 1, l2Table: 2, alone: 3 } as const;

/** Takes clusters in a row that something in the image refers to once, by the number of the first one. */
export type VisitReference = (first: number, count: number, use: number, what: string) => void;

/** An L1 table: that of the disk as it is now, or of a snapshot. */
export interface L1Place {
  readonly offset: number;
  readonly entries: number;
}

/** All that an image refers to, by its tables alone: what its refcounts must say. */
export class References {
  readonly #file: BlockDevice;
  readonly #header: Header;
  readonly #geometry: Geometry;
  readonly #rules: MappingRules;
  readonly #snapshots: readonly Snapshot[];
  readonly #snapshotBytes: number;
  readonly #bitmaps: readonly BitmapSection[];
  readonly #signal: AbortSignal | undefined;
  readonly #turns = new Turns();

  private constructor(
    file: BlockDevice,
    header: Header,
    { snapshots, length }: { snapshots: readonly Snapshot[]; length: number },
    bitmaps: readonly BitmapSection[],
    signal: AbortSignal | undefined,
  ) {
    this.#file = file;
    this.#header = header;
    this.#geometry = geometryOf(header);
    this.#rules = {
      geometry: this.#geometry,
      version: header.version,
      dataFile: hasDataFile(header),
      image: file.name,
    };
    this.#snapshots = snapshots;
    this.#snapshotBytes = length;
    this.#bitmaps = bitmaps;
    this.#signal = signal;
  }

  /**
   * @param signal ends every walk through the tables.
   * @throws LacunaError ERR_QCOW2_CORRUPT, ERR_QCOW2_UNSUPPORTED
   */
  static async open(file: BlockDevice, header: Header, signal?: AbortSignal): Promise<References> {
    const snapshots = await readSnapshotTable(file, header);
    const options = { file: readerOf(file), readOnly: true };
    const bitmaps = await readBitmapSections(header, file.name, options);
    refuseOverlaps({
      header,
      image: file.name,
      snapshots: snapshots.snapshots,
      snapshotBytes: snapshots.length,
      bitmaps: bitmaps.map(({ entry }) => entry),
    });
    return new References(file, header, snapshots, bitmaps, signal);
  }

  /**
   * Visits all references.
   *
   * @throws LacunaError ERR_QCOW2_CORRUPT if a table has a wrong entry; ERR_ABORTED.
   */
  async visit(visit: VisitReference): Promise<void> {
    const { l1Offset, l1Size } = this.#header;
    this.#refer(visit, 0, this.#geometry.clusterSize, Use.alone, 'the header');
    await this.#visitRefcounts(visit);
    await this.#visitL1(visit, { offset: l1Offset, entries: l1Size });
    const { snapshotsOffset } = this.#header;
    this.#refer(visit, snapshotsOffset, this.#snapshotBytes, Use.alone, 'the snapshot table');
    for (const { l1Offset: offset, l1Size: entries } of this.#snapshots) {
      await this.#visitL1(visit, { offset, entries });
    }
    await this.#visitBitmaps(visit);
  }

  /** The L1 table of the disk as it is now. */
  readActiveL1(): Promise<Uint8Array> {
    const { l1Offset, l1Size } = this.#header;
    return this.#read(l1Offset, l1Size * 8);
  }

  /** The L2 tables that an L1 table names, one after the other. */
  async *l2Tables(l1: Uint8Array): AsyncGenerator<{ offset: number; bytes: Uint8Array }> {
    const view = viewOf(l1);
    const { clusterSize } = this.#geometry;
    for (let at = 0; at < l1.length; at += 8) {
      const { offset } = readL1Entry(view, at);
      if (offset === 0) continue;
      this.#check(offset, clusterSize, 'an L2 table');
      yield { offset, bytes: await this.#read(offset, clusterSize) };
    }
  }

  /**
   * The L2 tables of an L1 table, by where that lies.
   *
   * @throws LacunaError ERR_QCOW2_CORRUPT where it names one twice, or where none can be; ERR_ABORTED.
   */
  async *tablesAt({
    offset,
    entries,
  }: L1Place): AsyncGenerator<{ offset: number; bytes: Uint8Array }> {
    const l1 = await this.#read(offset, entries * 8);
    this.#refuseTwice(l1, offset);
    yield* this.l2Tables(l1);
  }

  async #visitRefcounts(visit: VisitReference): Promise<void> {
    const { refcountTableOffset, refcountTableClusters } = this.#header;
    const { clusterSize } = this.#geometry;
    const length = refcountTableClusters * clusterSize;
    this.#refer(visit, refcountTableOffset, length, Use.alone, 'the refcount table');
    const table = viewOf(await this.#read(refcountTableOffset, length));
    for (let at = 0; at < length; at += 8) {
      const offset = readRefcountTableEntry(table, at);
      if (offset !== 0) this.#refer(visit, offset, clusterSize, Use.alone, 'a refcount block');
    }
  }

  async #visitL1(visit: VisitReference, { offset, entries }: L1Place): Promise<void> {
    if (entries === 0) return;
    const { clusterSize } = this.#geometry;
    this.#refer(visit, offset, entries * 8, Use.alone, 'an L1 table');
    const l1 = await this.#read(offset, entries * 8);
    this.#refuseTwice(l1, offset);
    for await (const table of this.l2Tables(l1)) {
      this.#refer(visit, table.offset, clusterSize, Use.l2Table, 'an L2 table');
      this.#visitL2(visit, table);
    }
  }

  /** A table that is named twice could make the walk loop for very long. */
  #refuseTwice(l1: Uint8Array, offset: number): void {
    const view = viewOf(l1);
    const tables = new Float64Array(l1.length / 8);
    for (let i = 0; i < tables.length; i++) tables[i] = readL1Entry(view, i * 8).offset;
    tables.sort();
    const twice = tables.find((table, i) => table !== 0 && table === tables[i + 1]);
    if (twice === undefined) return;
    throw corrupt(this.#file.name, `the L2 table at ${twice} twice in an L1 table`, offset);
  }

  #visitL2(visit: VisitReference, table: { offset: number; bytes: Uint8Array }): void {
    const { l2EntryBytes, clusterSize } = this.#geometry;
    const view = viewOf(table.bytes);
    for (let at = 0; at < table.bytes.length; at += l2EntryBytes) {
      if (view.getUint32(at) === 0 && view.getUint32(at + 4) === 0) continue;
      const { host, compressed } = readMapped(table.bytes, at, this.#rules, table.offset);
      if (compressed !== undefined) {
        const first = Math.floor(compressed.offset / clusterSize) * clusterSize;
        const length = compressed.offset + compressed.length - first;
        this.#refer(visit, first, length, Use.data, 'a compressed cluster');
      } else if (host !== undefined && !this.#rules.dataFile) {
        this.#refer(visit, host, clusterSize, Use.data, 'a cluster of the disk');
      }
    }
  }

  async #visitBitmaps(visit: VisitReference): Promise<void> {
    const extension = validBitmaps(this.#header);
    if (extension === undefined) return;
    const { directoryOffset, directorySize } = extension;
    this.#refer(visit, directoryOffset, directorySize, Use.alone, 'the bitmap directory');
    const { clusterSize } = this.#geometry;
    for (const section of this.#bitmaps) {
      await this.#pause();
      const { tableOffset, tableEntries } = section.entry;
      this.#refer(visit, tableOffset, tableEntries * 8, Use.alone, 'a bitmap table');
      for (const offset of await section.readTable()) {
        if (offset <= BitmapCluster.allDirty) continue;
        this.#refer(visit, offset, clusterSize, Use.alone, 'bits of a bitmap');
      }
    }
  }

  #refer(visit: VisitReference, offset: number, length: number, use: number, what: string): void {
    if (length === 0) return;
    this.#check(offset, length, what);
    const { clusterSize } = this.#geometry;
    visit(offset / clusterSize, Math.ceil(length / clusterSize), use, what);
  }

  /** The last cluster of a file may be there in part: a caller that needs its bytes looks whether they are there. */
  #check(offset: number, length: number, what: string): void {
    const { clusterSize } = this.#geometry;
    const isPlace = offset > 0 || what === 'the header';
    if (!isPlace || offset % clusterSize !== 0 || offset + length > MAX_HOST_OFFSET) {
      throw corrupt(this.#file.name, `${what} at ${offset}, where none can be`, offset);
    }
    if (offset + length - this.#file.end >= clusterSize) {
      throw cutShort(this.#file.name, what, { offset, end: this.#file.end });
    }
  }

  async #read(offset: number, length: number): Promise<Uint8Array> {
    await this.#pause();
    const bytes = new Uint8Array(length);
    if (length > 0) await this.#file.read(offset, bytes);
    return bytes;
  }

  /** Between reads, lets the event loop run, and ends the walk where the caller has given up. */
  async #pause(): Promise<void> {
    await this.#turns.next();
    throwIfAborted(this.#signal);
  }
}
