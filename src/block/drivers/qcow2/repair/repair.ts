/**
 * Refcounts made anew for an image that was not closed ("Header", incompatible bit 0): they may be wrong then, and its
 * tables are right. The bit is cleared last, and until then nobody believes the refcounts; so this may be interrupted
 * anywhere, and be done again.
 */
import {
  Autoclear,
  corrupt,
  type Header,
  hasDataFile,
  Incompatible,
  type Mapped,
  type MappingRules,
  RefcountCodec,
  readL1Entry,
  readMapped,
  readRefcountTableEntry,
  unsupported,
  writeL1Entry,
  writeMapped,
  writeRefcountTableEntry,
} from '../../../../qcow2/index.js';
import { Turns, viewOf } from '../../../../util/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { HostFile, joinSpans, LiveHeader, type Span } from '../io/index.js';
import { References, Use } from './references.js';

/** Clusters that are counted at once, five bytes each; each further window costs a walk through all tables. */
const WINDOW = 2 ** 23;
const MOST_WINDOWS = 1024;

const ADVICE = 'repair it with "qemu-img check -r all"';

/** How often clusters in a row are referred to, and what for. */
class Counts {
  readonly first: number;
  readonly #counts: Uint32Array;
  readonly #uses: Uint8Array;
  readonly #image: string;
  readonly #clusterSize: number;

  constructor(first: number, length: number, image: string, clusterSize: number) {
    this.first = first;
    this.#counts = new Uint32Array(length);
    this.#uses = new Uint8Array(length);
    this.#image = image;
    this.#clusterSize = clusterSize;
  }

  get end(): number {
    return this.first + this.#counts.length;
  }

  has(cluster: number): boolean {
    return cluster >= this.first && cluster < this.end;
  }

  get(cluster: number): number {
    return this.#counts[cluster - this.first];
  }

  /** Counts as far as it lies here. */
  add(first: number, count: number, use: number, what: string): void {
    const stop = Math.min(this.end, first + count);
    for (let cluster = Math.max(first, this.first); cluster < stop; cluster++) {
      const index = cluster - this.first;
      const other = this.#uses[index];
      if (other !== 0 && (other !== use || use === Use.alone)) {
        const offset = cluster * this.#clusterSize;
        throw corrupt(this.#image, `${what} in a cluster that something else uses`, offset);
      }
      this.#uses[index] = use;
      this.#counts[index]++;
    }
  }

  /** First cluster from `from` on that nothing refers to; -1 where there is none before `end`. */
  nextFree(from: number, end: number): number {
    const found = this.#counts.subarray(from - this.first, end - this.first).indexOf(0);
    return found < 0 ? -1 : from + found;
  }

  isFree(from: number, end: number): boolean {
    return this.#counts.subarray(from - this.first, end - this.first).every((count) => count === 0);
  }
}

/** What is not known here may have clusters that nothing known refers to, which are free afterwards. */
const KNOWN_AUTOCLEAR = Autoclear.bitmaps | Autoclear.rawDataFile;

/**
 * Makes the refcounts of an image right, if it says that they may be wrong, and what it says of clusters that are
 * alone. What nothing refers to is free then.
 *
 * @param file the image's own, open for writing, which grows if it can.
 * @param signal gives up what may take long; the image is still marked then.
 * @returns the header as it is now.
 * @throws LacunaError ERR_QCOW2_CORRUPT, ERR_QCOW2_UNSUPPORTED if a table has a wrong entry; the image is still
 * marked then. ERR_ABORTED.
 */
export async function repairRefcounts(
  file: BlockDevice,
  header: Header,
  signal?: AbortSignal,
): Promise<Header> {
  if ((header.incompatible & Incompatible.dirty) === 0n) return header;
  const host = new HostFile(file);
  const live = new LiveHeader(host, header);
  await new Repair(file, host, live, await References.open(file, header, signal)).run();
  await live.update({
    incompatible: header.incompatible & ~Incompatible.dirty,
    autoclear: header.autoclear & KNOWN_AUTOCLEAR,
  });
  return live.current;
}

/** Which refcounts are made right. */
export interface RebuildOptions {
  /** Only those that are too high; nothing else is changed then. Default false. */
  readonly leaksOnly?: boolean;
  /** Gives up what may take long. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Makes the refcounts of an image right, whatever it says of them. An image of version 3 stays marked as not closed until
 * all is done: if the repair is interrupted, opening the image for writing does it again. Nothing is changed if a table has
 * a wrong entry.
 *
 * @returns how many marks of clusters that are alone were wrong, and are right now.
 * @throws LacunaError ERR_QCOW2_CORRUPT, ERR_QCOW2_UNSUPPORTED, ERR_ABORTED.
 */
export async function rebuildRefcounts(
  file: BlockDevice,
  header: Header,
  { leaksOnly = false, signal }: RebuildOptions,
): Promise<number> {
  const host = new HostFile(file);
  const live = new LiveHeader(host, header);
  const references = await References.open(file, header, signal);
  const repair = new Repair(file, host, live, references, leaksOnly);
  await repair.look();
  const autoclear = header.autoclear & KNOWN_AUTOCLEAR;
  if (leaksOnly) {
    await live.update({ autoclear });
    await repair.run();
    await host.flush();
    return 0;
  }
  await live.update({ autoclear, incompatible: header.incompatible | Incompatible.dirty });
  await repair.run();
  const marks = Incompatible.dirty | Incompatible.corrupt;
  await live.update({ incompatible: header.incompatible & ~marks });
  return repair.marked;
}

class Repair {
  /** Entries that say otherwise now whether their cluster is alone. */
  marked = 0;
  readonly #leaksOnly: boolean;
  readonly #name: string;
  readonly #file: BlockDevice;
  readonly #host: HostFile;
  readonly #header: Header;
  readonly #references: References;
  readonly #codec: RefcountCodec;
  readonly #rules: MappingRules;
  readonly #turns = new Turns();
  #table: Uint8Array = new Uint8Array(0);
  /** What {@link look} has found to be in use. */
  #looked: ReadonlySet<number> | undefined;

  constructor(
    file: BlockDevice,
    host: HostFile,
    live: LiveHeader,
    references: References,
    leaksOnly = false,
  ) {
    this.#leaksOnly = leaksOnly;
    const { current, geometry } = live;
    this.#name = host.name;
    this.#file = file;
    this.#host = host;
    this.#header = current;
    this.#references = references;
    this.#codec = new RefcountCodec(current.refcountOrder);
    const dataFile = hasDataFile(current);
    this.#rules = { geometry, version: current.version, dataFile, image: host.name };
  }

  /**
   * Looks whether all can be made right, before anything is changed.
   *
   * @throws LacunaError ERR_QCOW2_CORRUPT, ERR_QCOW2_UNSUPPORTED
   */
  async look(): Promise<void> {
    await this.#readTable();
    const { refcountBlockEntries: entries } = this.#rules.geometry;
    const size = Math.max(WINDOW, entries);
    const used = await this.#windows(size);
    for (const window of used) {
      const counts = await this.#count(window * size, size);
      if (this.#leaksOnly) continue;
      for (let index = counts.first / entries; counts.has(index * entries); index++) {
        this.#blockOf(index, counts);
        if (this.#needsBlock(index, counts)) this.#placeFor(index, counts);
      }
    }
    this.#looked = used;
  }

  async #readTable(): Promise<void> {
    const { refcountTableOffset, refcountTableClusters } = this.#header;
    this.#table = new Uint8Array(refcountTableClusters * this.#rules.geometry.clusterSize);
    await this.#host.read(refcountTableOffset, this.#table);
  }

  async run(): Promise<void> {
    await this.#readTable();
    const { clusterSize, refcountBlockEntries: entries } = this.#rules.geometry;
    const size = Math.max(WINDOW, entries);
    const used = this.#looked ?? (await this.#windows(size));
    // With one window this is done by its own repair.
    if (this.#looked === undefined && used.size > 1)
      for (const window of used) await this.#count(window * size, size);
    for (const window of used) await this.#repair(window * size, size);
    // What lies elsewhere is free.
    const nothing = new Counts(0, 0, this.#name, clusterSize);
    for (let index = 0; index * 8 < this.#table.length; index++) {
      const isDone = used.has(Math.floor((index * entries) / size));
      if (!isDone && this.#blockAt(index) !== 0) await this.#writeBlock(index, nothing);
    }
  }

  /** The windows that anything refers to. All tables are looked at before anything is changed. */
  async #windows(size: number): Promise<Set<number>> {
    const used = new Set<number>();
    await this.#references.visit((first, count) => {
      for (let at = Math.floor(first / size); at * size < first + count; at++) used.add(at);
    });
    if (used.size <= MOST_WINDOWS) return used;
    throw unsupported(this.#name, 'was not closed, and is too large to be repaired here', ADVICE);
  }

  /**
   * Counts the references to the clusters of a window.
   *
   * @throws LacunaError ERR_QCOW2_CORRUPT where one of them is used for two things: a block that is written would destroy
   * what else lies there.
   */
  async #count(first: number, size: number): Promise<Counts> {
    const { clusterSize, refcountBlockEntries: entries } = this.#rules.geometry;
    // Up to the end of the file, and of what the last block in it describes.
    const last = Math.ceil(this.#file.end / clusterSize) + 1;
    const end = Math.min(first + size, Math.ceil(last / entries) * entries);
    const counts = new Counts(first, Math.max(0, end - first), this.#name, clusterSize);
    await this.#references.visit((...reference) => {
      counts.add(...reference);
    });
    return counts;
  }

  async #repair(first: number, size: number): Promise<void> {
    const { refcountBlockEntries: entries } = this.#rules.geometry;
    const counts = await this.#count(first, size);
    for (let index = first / entries; index * entries < first + size; index++) {
      if (this.#isThere(index)) await this.#writeBlock(index, counts);
      else if (!this.#leaksOnly && this.#needsBlock(index, counts)) {
        await this.#addBlock(index, counts);
      }
    }
    if (!this.#leaksOnly) await this.#mark(counts);
  }

  #isThere(index: number): boolean {
    return index * 8 < this.#table.length && this.#blockAt(index) !== 0;
  }

  /** Whether there is no block for clusters that are in use. */
  #needsBlock(index: number, counts: Counts): boolean {
    const { refcountBlockEntries: entries } = this.#rules.geometry;
    const from = index * entries;
    if (this.#isThere(index) || !counts.has(from)) return false;
    return !counts.isFree(from, from + entries);
  }

  async #writeBlock(index: number, counts: Counts): Promise<void> {
    const offset = this.#blockAt(index);
    const before = new Uint8Array(this.#rules.geometry.clusterSize);
    await this.#host.read(offset, before);
    const after = this.#leaksOnly
      ? this.#lowered(index, before, counts)
      : this.#blockOf(index, counts);
    if (Buffer.compare(before, after) !== 0) await this.#host.write(offset, after);
    await this.#turns.next();
  }

  #blockOf(index: number, counts: Counts): Uint8Array {
    const { clusterSize, refcountBlockEntries: entries } = this.#rules.geometry;
    const block = new Uint8Array(clusterSize);
    const first = index * entries;
    for (let i = 0; i < entries && counts.has(first + i); i++) {
      const count = counts.get(first + i);
      if (count === 0) continue;
      if (count > this.#codec.maximum) {
        const what = `has ${count} references to one cluster, and its refcounts end at ${this.#codec.maximum}`;
        throw unsupported(this.#name, what, ADVICE);
      }
      this.#codec.set(block, i, count);
    }
    return block;
  }

  /** A block whose refcounts are nowhere higher than they must be, and nowhere higher than before. */
  #lowered(index: number, before: Uint8Array, counts: Counts): Uint8Array {
    const { refcountBlockEntries: entries } = this.#rules.geometry;
    const block = before.slice();
    for (let i = 0; i < entries; i++) {
      const cluster = index * entries + i;
      const count = counts.has(cluster) ? counts.get(cluster) : 0;
      if (count < this.#codec.get(block, i)) this.#codec.set(block, i, count);
    }
    return block;
  }

  /** A free one of the clusters that a block describes, for the block itself. */
  #placeFor(index: number, counts: Counts): number {
    const { clusterSize, refcountBlockEntries: entries } = this.#rules.geometry;
    const cluster = counts.nextFree(index * entries, (index + 1) * entries);
    const isRoom = cluster >= 0 && (cluster + 1) * clusterSize <= this.#host.room;
    if (isRoom && index * 8 < this.#table.length) return cluster;
    throw unsupported(this.#name, 'uses clusters that no refcount can be kept for', ADVICE);
  }

  /** Adds a block where there is none. */
  async #addBlock(index: number, counts: Counts): Promise<void> {
    const { clusterSize } = this.#rules.geometry;
    const cluster = this.#placeFor(index, counts);
    counts.add(cluster, 1, Use.alone, 'a refcount block');
    await this.#host.write(cluster * clusterSize, this.#blockOf(index, counts));
    await this.#host.flush();
    writeRefcountTableEntry(viewOf(this.#table), index * 8, cluster * clusterSize);
    const { refcountTableOffset } = this.#header;
    const span = { from: index * 8, to: index * 8 + 8 };
    await this.#host.writeSpan(refcountTableOffset, this.#table, span);
  }

  /** Says of the clusters that the disk has now whether they are alone, and so can be written in place. */
  async #mark(counts: Counts): Promise<void> {
    const l1 = await this.#references.readActiveL1();
    const changed = this.#markL1(l1, counts);
    if (changed !== undefined) await this.#host.writeSpan(this.#header.l1Offset, l1, changed);
    if (this.#rules.dataFile) return;
    for await (const { offset, bytes } of this.#references.l2Tables(l1)) {
      const span = this.#markL2(bytes, offset, counts);
      if (span !== undefined) await this.#host.writeSpan(offset, bytes, span);
    }
  }

  #markL1(l1: Uint8Array, counts: Counts): Span | undefined {
    const view = viewOf(l1);
    let changed: Span | undefined;
    for (let at = 0; at < l1.length; at += 8) {
      const { offset, copied } = readL1Entry(view, at);
      if (offset === 0 || this.#isMarked(offset, copied, counts)) continue;
      writeL1Entry(view, at, { offset, copied: !copied });
      this.marked++;
      changed = joinSpans(changed, { from: at, to: at + 8 });
    }
    return changed;
  }

  #markL2(table: Uint8Array, offset: number, counts: Counts): Span | undefined {
    const { geometry } = this.#rules;
    const view = viewOf(table);
    let changed: Span | undefined;
    for (let at = 0; at < table.length; at += geometry.l2EntryBytes) {
      if (view.getUint32(at) === 0 && view.getUint32(at + 4) === 0) continue;
      const mapped: Mapped = readMapped(table, at, this.#rules, offset);
      const { host, copied } = mapped;
      if (host === undefined || this.#isMarked(host, copied, counts)) continue;
      writeMapped(table, at, { ...mapped, copied: !copied }, geometry);
      this.marked++;
      changed = joinSpans(changed, { from: at, to: at + geometry.l2EntryBytes });
    }
    return changed;
  }

  /** Whether a cluster is marked as it must be; true where another window knows. */
  #isMarked(offset: number, copied: boolean, counts: Counts): boolean {
    const cluster = offset / this.#rules.geometry.clusterSize;
    return !counts.has(cluster) || copied === (counts.get(cluster) === 1);
  }

  #blockAt(index: number): number {
    return readRefcountTableEntry(viewOf(this.#table), index * 8);
  }
}
