/** Goes through all tables of an image, whatever is wrong in them, and counts what they refer to. */
import { throwIfAborted } from '../../../../errors/index.js';
import {
  BitmapCluster,
  type CompressedEntry,
  compressedEntry,
  entryOffset,
  type Geometry,
  geometryOf,
  type Header,
  hasDataFile,
  isCompressed,
  isCopied,
  isZeroFlagged,
  readSubclusters,
  type Snapshot,
  validBitmaps,
} from '../../../../qcow2/index.js';
import { Turns, viewOf } from '../../../../util/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { type BitmapSection, readBitmapSections } from '../bitmaps/index.js';
import { readerOf, readPadded, readSnapshotTable } from '../io/index.js';
import type { Findings } from './findings.js';
import type { ReferenceCounts } from './reference-counts.js';
import type { StoredRefcounts } from './stored-refcounts.js';

/** Bits of the two halves of an entry that must be 0. */
const L1_RESERVED = [0x7f00_0000, 0x1ff] as const;
const L2_RESERVED = [0x3f00_0000, 0x1fe] as const;

/** What kind of cluster an L2 entry names; only what has a place in the file is `placed`. */
export interface Entry {
  readonly at: number;
  readonly high: number;
  readonly low: number;
  readonly offset: number;
  readonly copied: boolean;
  readonly kind: 'compressed' | 'placed' | 'nowhere';
}

/** What is counted in one walk, and where what is found goes to. */
interface Count {
  readonly counts: ReferenceCounts;
  /** For what is seen in the window of a cluster only. */
  readonly findings: Findings;
  /** For what every walk sees. */
  readonly once: Findings | undefined;
}

/** An image as a check sees it. */
export class TableWalk {
  readonly geometry: Geometry;
  readonly header: Header;
  readonly file: BlockDevice;
  readonly dataFile: boolean;
  readonly #snapshots: readonly Snapshot[];
  readonly #snapshotBytes: number;
  readonly #bitmaps: readonly BitmapSection[];
  readonly #signal: AbortSignal | undefined;
  readonly #turns = new Turns();

  private constructor(
    file: BlockDevice,
    header: Header,
    table: { snapshots: readonly Snapshot[]; length: number },
    bitmaps: readonly BitmapSection[],
    signal: AbortSignal | undefined,
  ) {
    this.file = file;
    this.header = header;
    this.geometry = geometryOf(header);
    this.dataFile = hasDataFile(header);
    this.#snapshots = table.snapshots;
    this.#snapshotBytes = table.length;
    this.#bitmaps = bitmaps;
    this.#signal = signal;
  }

  /** @throws LacunaError ERR_QCOW2_CORRUPT, ERR_QCOW2_UNSUPPORTED where snapshots or bitmaps cannot be listed. */
  static async open(file: BlockDevice, header: Header, signal?: AbortSignal): Promise<TableWalk> {
    const table = await readSnapshotTable(file, header);
    const options = { file: readerOf(file), readOnly: true };
    const bitmaps = await readBitmapSections(header, file.name, options);
    return new TableWalk(file, header, table, bitmaps, signal);
  }

  /** Counts all references into a window; of several walks, the first tells what is wrong in the tables. */
  async count(counts: ReferenceCounts, stored: StoredRefcounts, findings: Findings): Promise<void> {
    const into = { counts, findings, once: counts.first === 0 ? findings : undefined };
    const { l1Offset, l1Size, snapshotsOffset } = this.header;
    this.#refer(into, 0, this.geometry.clusterSize, stored.maximum);
    await this.#countL1(into, { offset: l1Offset, entries: l1Size }, stored, true);
    if (this.dataFile && this.#snapshots.length > 0) {
      into.once?.damage('there are snapshots, which a data file cannot have');
    }
    for (const { l1Offset: offset, l1Size: entries } of this.#snapshots) {
      await this.#countL1(into, { offset, entries }, stored, false);
    }
    this.#refer(into, snapshotsOffset, this.#snapshotBytes, stored.maximum);
    const { refcountTableOffset } = this.header;
    this.#refer(into, refcountTableOffset, stored.blocks * 8, stored.maximum);
    await this.#countBitmaps(into, stored.maximum);
    this.#countBlocks(into, stored);
  }

  /** The L2 tables that the disk as it is now names, each with its own entry. */
  async *activeTables(): AsyncGenerator<{ entry: Entry; table: Uint8Array }> {
    const { l1Offset, l1Size } = this.header;
    const l1 = await this.read(l1Offset, l1Size * 8);
    for (let at = 0; at < l1.length; at += 8) {
      const entry = standardEntry(l1, at);
      if (entry.offset === 0) continue;
      yield { entry, table: await this.read(entry.offset, this.geometry.clusterSize) };
    }
  }

  /** The entries of an L2 table that are not empty. */
  *entriesOf(table: Uint8Array): Generator<Entry> {
    const view = viewOf(table);
    const { l2EntryBytes } = this.geometry;
    for (let at = 0; at < table.length; at += l2EntryBytes) {
      const isEmpty = view.getUint32(at) === 0 && view.getUint32(at + 4) === 0;
      if (!isEmpty || this.geometry.extended) yield this.#entryAt(table, at);
    }
  }

  /** Between reads, lets the event loop run, and ends the walk where the caller has given up. */
  async pause(): Promise<void> {
    await this.#turns.next();
    throwIfAborted(this.#signal);
  }

  /** Bytes of the file; behind its end, and where nothing can be, they are zero. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    await this.pause();
    const bytes = new Uint8Array(length);
    if (length > 0 && Number.isSafeInteger(offset + length)) {
      await readPadded(this.file, offset, bytes);
    }
    return bytes;
  }

  #entryAt(table: Uint8Array, at: number): Entry {
    const entry = standardEntry(table, at);
    const { high, low, offset, copied } = entry;
    if (isCompressed(high)) return { ...entry, kind: 'compressed' };
    const isPlaced = offset !== 0 || (this.dataFile && copied && !this.#isZero(low));
    return { ...entry, kind: isPlaced ? 'placed' : 'nowhere' };
  }

  #isZero(low: number): boolean {
    return !this.geometry.extended && isZeroFlagged(low);
  }

  async #countL1(
    into: Count,
    { offset, entries }: { offset: number; entries: number },
    { maximum }: StoredRefcounts,
    isActive: boolean,
  ): Promise<void> {
    if (entries === 0) return;
    const { clusterSize } = this.geometry;
    this.#refer(into, offset, entries * 8, maximum);
    const l1 = await this.read(offset, entries * 8);
    for (let at = 0; at < l1.length; at += 8) {
      const entry = standardEntry(l1, at);
      if (entry.high === 0 && entry.low === 0) continue;
      const where = `entry ${at / 8} of the L1 table at ${offset}`;
      if (hasReserved(entry, L1_RESERVED)) into.once?.damage(`${where} has reserved bits`);
      this.#refer(into, entry.offset, clusterSize, maximum);
      if (entry.offset % clusterSize !== 0) {
        into.once?.damage(`${where} names ${entry.offset}, which is no start of a cluster`);
      }
      const table = await this.read(entry.offset, clusterSize);
      this.#countL2(into, { table, offset: entry.offset }, maximum, isActive);
    }
  }

  #countL2(
    into: Count,
    { table, offset }: { table: Uint8Array; offset: number },
    maximum: number,
    isActive: boolean,
  ): void {
    const { once } = into;
    let next = 0;
    for (const entry of this.entriesOf(table)) {
      const where = `the entry at ${entry.at} of the L2 table at ${offset}`;
      if (entry.kind === 'compressed') {
        if (!this.#isCompressedSound(entry, table, where, once)) continue;
        const place: CompressedEntry = compressedEntry(entry.high, entry.low, this.geometry);
        this.#refer(into, place.offset, place.length, maximum);
        if (once === undefined || !isActive) continue;
        once.allocatedClusters++;
        once.compressedClusters++;
        once.fragmentedClusters++;
        continue;
      }
      if (hasReserved(entry, L2_RESERVED)) once?.damage(`${where} has reserved bits`);
      if (!this.#isPlaceSound(entry, table, where, once) || entry.kind === 'nowhere') continue;
      if (once !== undefined && isActive) {
        once.allocatedClusters++;
        if (next !== 0 && entry.offset !== next) once.fragmentedClusters++;
        next = entry.offset + this.geometry.clusterSize;
      }
      if (!this.dataFile) this.#refer(into, entry.offset, this.geometry.clusterSize, maximum);
    }
  }

  /** Whether a compressed cluster can be where it is said to be. */
  #isCompressedSound(
    { copied, at }: Entry,
    table: Uint8Array,
    where: string,
    findings: Findings | undefined,
  ): boolean {
    if (copied) findings?.damage(`${where} is compressed, and marked as alone`);
    if (this.dataFile) {
      findings?.damage(`${where} is compressed, which a data file cannot hold`);
      return false;
    }
    const { zero, allocated } = this.#unitsAt(table, at);
    if (zero === 0 && allocated === 0) return true;
    findings?.damage(`${where} is compressed, and has subclusters`);
    return false;
  }

  /** Whether what an entry says goes together; a wrong place is counted as it stands. */
  #isPlaceSound(
    { at, kind, offset }: Entry,
    table: Uint8Array,
    where: string,
    findings: Findings | undefined,
  ): boolean {
    const { zero, allocated } = this.#unitsAt(table, at);
    if (kind === 'nowhere') {
      if (allocated !== 0) findings?.damage(`${where} has subclusters that lie nowhere`);
      return true;
    }
    if ((zero & allocated) !== 0) {
      findings?.damage(`${where} has subclusters in two states at once`);
      return false;
    }
    if (offset % this.geometry.clusterSize !== 0) {
      findings?.damage(`${where} names ${offset}, which is no start of a cluster`);
    }
    return true;
  }

  #unitsAt(table: Uint8Array, at: number): { zero: number; allocated: number } {
    if (!this.geometry.extended) return { zero: 0, allocated: 0 };
    return readSubclusters(viewOf(table), at);
  }

  async #countBitmaps(into: Count, maximum: number): Promise<void> {
    const extension = validBitmaps(this.header);
    if (extension === undefined) return;
    const { directoryOffset, directorySize } = extension;
    this.#refer(into, directoryOffset, directorySize, maximum);
    for (const section of this.#bitmaps) {
      const { tableOffset, tableEntries } = section.entry;
      this.#refer(into, tableOffset, tableEntries * 8, maximum);
      await this.pause();
      for (const offset of await section.readTable()) {
        if (offset <= BitmapCluster.allDirty) continue;
        this.#refer(into, offset, this.geometry.clusterSize, maximum);
      }
    }
  }

  #countBlocks(into: Count, stored: StoredRefcounts): void {
    const { clusterSize } = this.geometry;
    const { counts, findings, once } = into;
    const clusters = Math.ceil(this.file.end / clusterSize);
    for (let index = 0; index < stored.blocks; index++) {
      const offset = stored.blockOffset(index);
      if (stored.isReserved(index)) {
        once?.damage(`entry ${index} of the refcount table has reserved bits`);
        continue;
      }
      if (offset === 0) continue;
      if (offset % clusterSize !== 0) {
        once?.damage(`refcount block ${index} at ${offset} is no start of a cluster`);
        continue;
      }
      const cluster = offset / clusterSize;
      if (cluster >= clusters) {
        once?.damage(`refcount block ${index} at ${offset} lies behind the end of the file`);
        continue;
      }
      this.#refer(into, offset, clusterSize, stored.maximum);
      if (cluster < counts.first || cluster >= counts.end || counts.get(cluster) === 1) continue;
      findings.damage(`refcount block ${index} at ${offset} is used for something else too`);
    }
  }

  /** Counts the clusters that a range touches; QEMU takes a last one that is there in part. */
  #refer(into: Count, offset: number, length: number, maximum: number): void {
    if (length <= 0) return;
    const { clusterSize } = this.geometry;
    const { counts } = into;
    if (offset + length - this.file.end >= clusterSize) {
      into.once?.damage(`${length} bytes at ${offset} lie behind the end of the file`);
      return;
    }
    const first = Math.max(Math.floor(offset / clusterSize), counts.first);
    const end = Math.min(Math.ceil((offset + length) / clusterSize), counts.end);
    for (let cluster = first; cluster < end; cluster++) {
      if (counts.get(cluster) < maximum) counts.add(cluster);
      else {
        into.findings.damage(`cluster ${cluster} has more references than a refcount can be`);
      }
    }
  }
}

function standardEntry(table: Uint8Array, at: number): Entry {
  const view = viewOf(table);
  const [high, low] = [view.getUint32(at), view.getUint32(at + 4)];
  return { at, high, low, offset: entryOffset(high, low), copied: isCopied(high), kind: 'placed' };
}

function hasReserved({ high, low }: Entry, [inHigh, inLow]: readonly [number, number]): boolean {
  return (high & inHigh) !== 0 || (low & inLow) !== 0;
}
