import { LacunaError } from '../../../../errors/index.js';
import {
  Autoclear,
  corrupt,
  encodeSnapshots,
  Incompatible,
  l1EntriesFor,
  MAX_SNAPSHOT_TABLE_BYTES,
  MAX_SNAPSHOTS,
  type MappingRules,
  readL1Entry,
  type Snapshot,
  unsupported,
  writeL1Entry,
} from '../../../../qcow2/index.js';
import { viewOf } from '../../../../util/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { checkWritable } from '../in-place/index.js';
import { HostFile, joinSpans, LiveHeader, readHeader, readSnapshotTable } from '../io/index.js';
import {
  type L1Place,
  References,
  rebuildRefcounts,
  refuseCut,
  repairRefcounts,
} from '../repair/index.js';
import { Allocator, type Run, referencesOf } from '../write/index.js';
import { markClusters } from './shared-flags.js';

const KNOWN_AUTOCLEAR = Autoclear.bitmaps | Autoclear.rawDataFile;

/** The parts of an image whose snapshots change. */
interface Parts {
  readonly file: BlockDevice;
  readonly host: HostFile;
  readonly header: LiveHeader;
  readonly allocator: Allocator;
  readonly references: References;
  readonly snapshots: readonly Snapshot[];
  readonly tableBytes: number;
}

/**
 * The tables of an image at rest whose snapshots change. Clusters that several of them refer to are counted as often, and
 * none of the tables of the disk as it is now says of one that it is alone.
 *
 * Crash safety. Refcounts are raised before anything refers to what they count, and lowered when nothing does any more;
 * what comes into force does so with one sector, that of the header. What clusters say of being alone lags behind in
 * between, and refcounts may be too high: so an image of version 3 is marked as not closed meanwhile, and the next one who
 * opens it for writing, here or in QEMU, makes all of it right. One of version 2 cannot be marked: "check -r all" does it.
 */
export class ImageTables {
  readonly header: LiveHeader;
  readonly host: HostFile;
  readonly allocator: Allocator;
  readonly snapshots: readonly Snapshot[];
  readonly #parts: Parts;
  readonly #rules: MappingRules;
  /** Bytes of the snapshot table. */
  #tableBytes: number;

  private constructor(parts: Parts) {
    const { header, host, allocator, snapshots, tableBytes } = parts;
    this.header = header;
    this.host = host;
    this.allocator = allocator;
    this.snapshots = snapshots;
    this.#parts = parts;
    this.#tableBytes = tableBytes;
    const { version } = header.current;
    this.#rules = { geometry: header.geometry, version, dataFile: false, image: host.name };
  }

  /**
   * @param file the image's own, open for writing.
   * @throws LacunaError ERR_QCOW2_CORRUPT; ERR_QCOW2_UNSUPPORTED where it has a data file, or must be repaired first.
   */
  static async open(file: BlockDevice, signal: AbortSignal | undefined): Promise<ImageTables> {
    const found = await readHeader(file);
    if ((found.incompatible & Incompatible.dataFile) !== 0n) {
      const needed = 'keeps its clusters in a data file, where snapshots cannot share them';
      throw unsupported(file.name, needed, 'copy the disk into an image without one');
    }
    const current = await repairRefcounts(file, found, signal);
    checkWritable(current, file.name);
    const host = new HostFile(file);
    const header = new LiveHeader(host, current);
    const allocator = await Allocator.open(host, header);
    await refuseCut({ header: current, file, allocator }, signal);
    const { snapshots, length: tableBytes } = await readSnapshotTable(file, current);
    const references = await References.open(file, current, signal);
    return new ImageTables({ file, host, header, allocator, references, snapshots, tableBytes });
  }

  /** The L1 table of the disk as it is now. */
  get active(): L1Place {
    const { l1Offset, l1Size } = this.header.current;
    return { offset: l1Offset, entries: l1Size };
  }

  /**
   * Looks whether the tables below an L1 table can be worked with, before anything is changed.
   *
   * @throws LacunaError ERR_QCOW2_CORRUPT; ERR_QCOW2_UNSUPPORTED where a refcount cannot be higher and has to be.
   */
  async look(place: L1Place, { raises }: { raises: boolean }): Promise<void> {
    const { clusterSize } = this.header.geometry;
    for await (const { offset, bytes } of this.#parts.references.tablesAt(place)) {
      const taken = this.header.metadataIn(offset, offset + clusterSize);
      if (taken !== undefined) throw corrupt(this.host.name, `${taken} in an L2 table`, offset);
      const runs = this.#runsOf(bytes, offset);
      if (raises) await this.allocator.checkReferences(runs);
    }
  }

  /**
   * Runs what changes the tables, and says meanwhile that the image is not closed. Where a refcount turns out to end too
   * soon, all of them are made again as they must be.
   */
  async change<T>(task: () => Promise<T>): Promise<T> {
    const { current } = this.header;
    const autoclear = current.autoclear & KNOWN_AUTOCLEAR;
    const mark = current.version > 2 ? Incompatible.dirty : 0n;
    await this.header.update({ autoclear, incompatible: current.incompatible | mark });
    try {
      const result = await task();
      await this.allocator.writeBack();
      await this.header.update({ incompatible: this.header.current.incompatible & ~mark });
      return result;
    } catch (error) {
      await this.#undo(error);
      throw error;
    }
  }

  /** Counts what an L1 table refers to once more, and says of none of it that it is alone. */
  async share(place: L1Place): Promise<void> {
    for await (const { offset, bytes } of this.#parts.references.tablesAt(place)) {
      await this.allocator.addReferences(this.#runsOf(bytes, offset));
      const changed = await markClusters(bytes, offset, this.#rules, () => false);
      if (changed !== undefined) await this.host.writeSpan(offset, bytes, changed);
    }
  }

  /** Gives up an L1 table that nothing names any more, and what it refers to. */
  async giveUp(place: L1Place): Promise<void> {
    for await (const { offset, bytes } of this.#parts.references.tablesAt(place)) {
      await this.allocator.free(this.#runsOf(bytes, offset));
    }
    // One without entries has no place, whatever stands for it.
    await this.allocator.free([this.#clustersOf(place.offset, place.entries * 8)]);
    await this.allocator.writeBack();
    await this.host.flush();
  }

  /**
   * Writes an L1 table that names the same as another one, and says of none of it that it is alone.
   *
   * @param size bytes of the disk that it must be long enough for.
   */
  async copyL1(place: L1Place, size: number): Promise<L1Place> {
    const { clusterSize } = this.header.geometry;
    const entries = Math.max(1, place.entries, l1EntriesFor(size, this.header.geometry));
    const count = Math.ceil((entries * 8) / clusterSize);
    const l1 = await this.#readL1(place);
    this.#markTables(l1, () => false);
    const bytes = new Uint8Array(count * clusterSize);
    bytes.set(l1);
    const { offset } = await this.allocator.allocateTogether(count);
    await this.host.write(offset, bytes);
    return { offset, entries };
  }

  /** Says in the L1 table of the disk that none of its tables is alone. */
  async shareTables(): Promise<void> {
    const { offset } = this.active;
    const l1 = await this.#readL1(this.active);
    const changed = this.#markTables(l1, () => false);
    if (changed !== undefined) await this.host.writeSpan(offset, l1, changed);
  }

  /** Says of all tables and clusters of the disk whether they are alone now. */
  async markAlone(): Promise<void> {
    const { allocator, host } = this;
    const l1 = await this.#readL1(this.active);
    const alone = new Set<number>();
    for await (const { offset, bytes } of this.#parts.references.l2Tables(l1)) {
      if ((await allocator.refcountAt(offset)) === 1) alone.add(offset);
      const isAlone = (place: number) => {
        const refcount = allocator.refcountAt(place);
        return typeof refcount === 'number' ? refcount === 1 : refcount.then((n) => n === 1);
      };
      const changed = await markClusters(bytes, offset, this.#rules, isAlone);
      if (changed !== undefined) await host.writeSpan(offset, bytes, changed);
    }
    const changed = this.#markTables(l1, (offset) => alone.has(offset));
    if (changed !== undefined) await host.writeSpan(this.active.offset, l1, changed);
  }

  /**
   * Makes the header name other snapshots, together with other changes of it; all that was written before is durable
   * then.
   */
  async nameSnapshots(snapshots: readonly Snapshot[]): Promise<void> {
    const bytes = encodeSnapshots(snapshots);
    const old = this.#clustersOf(this.header.current.snapshotsOffset, this.#tableBytes);
    let snapshotsOffset = 0;
    if (bytes.length > 0) {
      const { count } = this.#clustersOf(0, bytes.length);
      const run = await this.allocator.allocateTogether(count);
      snapshotsOffset = run.offset;
      const padded = new Uint8Array(count * this.header.geometry.clusterSize);
      padded.set(bytes);
      await this.host.write(snapshotsOffset, padded);
    }
    await this.allocator.writeBack();
    await this.header.update({ snapshotsOffset, snapshotCount: snapshots.length });
    this.#tableBytes = bytes.length;
    if (old.count > 0) await this.allocator.free([old]);
  }

  /** @throws LacunaError ERR_QCOW2_UNSUPPORTED where the image can have no more. */
  checkRoomFor(snapshots: readonly Snapshot[]): void {
    const bytes = encodeSnapshots(snapshots).length;
    if (snapshots.length <= MAX_SNAPSHOTS && bytes <= MAX_SNAPSHOT_TABLE_BYTES) return;
    const needed = `would have ${snapshots.length} snapshots, and at most ${MAX_SNAPSHOTS} are allowed`;
    throw unsupported(this.host.name, needed, 'delete some');
  }

  /** Where a refcount could not be raised, all refcounts are made again, so that the image is right for its next user. */
  async #undo(error: unknown): Promise<void> {
    const isKnown = error instanceof LacunaError && error.code === 'ERR_QCOW2_UNSUPPORTED';
    if (!isKnown || this.host.broken) return;
    const { file } = this.#parts;
    await rebuildRefcounts(file, await readHeader(file), {});
  }

  #runsOf(table: Uint8Array, offset: number): Run[] {
    return [...referencesOf(table, offset, this.#rules), { offset, count: 1 }];
  }

  #clustersOf(offset: number, bytes: number): Run {
    return { offset, count: Math.ceil(bytes / this.header.geometry.clusterSize) };
  }

  async #readL1({ offset, entries }: L1Place): Promise<Uint8Array> {
    const l1 = new Uint8Array(entries * 8);
    if (l1.length > 0) await this.host.read(offset, l1);
    return l1;
  }

  #markTables(l1: Uint8Array, isAlone: (offset: number) => boolean) {
    const view = viewOf(l1);
    let changed: { from: number; to: number } | undefined;
    for (let at = 0; at < l1.length; at += 8) {
      const { offset, copied } = readL1Entry(view, at);
      if (offset === 0 || copied === isAlone(offset)) continue;
      writeL1Entry(view, at, { offset, copied: !copied });
      changed = joinSpans(changed, { from: at, to: at + 8 });
    }
    return changed;
  }
}
