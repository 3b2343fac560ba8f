import {
  type Addition,
  Bitmap,
  type BitmapStore,
  type DirtyBitmaps,
} from '../../../../bitmap/index.js';
import { LacunaError } from '../../../../errors/index.js';
import {
  BitmapCluster,
  type BitmapEntry,
  type BitmapOwner,
  type BitmapsExtension,
  bitmapDirectoryBytes,
  checkBitmapsExtension,
  encodeBitmapDirectory,
  geometryOf,
  type Header,
  MAX_BITMAP_DIRECTORY_BYTES,
  MAX_BITMAPS,
  markInUse,
  parseBitmapDirectory,
  unsupported,
  validBitmaps,
  whyNotStorable,
} from '../../../../qcow2/index.js';
import { alignDown, alignUp, Serial } from '../../../../util/index.js';
import { type HostFile, type LiveHeader, readSnapshotTable } from '../io/index.js';
import type { Allocator, Run } from '../write/index.js';
import { type BitmapHome, BitmapSection, readInside } from './bitmap-section.js';
import { BitmapWriter } from './bitmap-writer.js';
import { nameBitmapDirectory } from './bitmaps-header.js';
import { refuseOverlaps } from './table-places.js';

/** Reads what bitmaps an image has, but none of their bits. */
export async function readBitmapSections(
  header: Header,
  image: string,
  options: Pick<BitmapHome, 'file' | 'readOnly' | 'arena'>,
): Promise<BitmapSection[]> {
  const extension = validBitmaps(header);
  if (extension === undefined) return [];
  const home = { ...options, owner: { image, geometry: geometryOf(header), size: header.size } };
  checkBitmapsExtension(extension, home.owner);
  const directory = new Uint8Array(extension.directorySize);
  await readInside(home, extension.directoryOffset, directory, 'the bitmap directory');
  const entries = parseBitmapDirectory(directory, extension, home.owner);
  return entries.map((entry) => new BitmapSection(entry, home));
}

/** The parts of an image that is open for writing. */
export interface WritableImage {
  /** The file as it was when it was opened. */
  readonly reader: BitmapHome['file'];
  readonly file: HostFile;
  readonly header: LiveHeader;
  readonly allocator: Allocator;
}

interface StoredState {
  readonly extension?: BitmapsExtension;
  readonly sections: readonly BitmapSection[];
}

/** A bitmap as it is to be stored. */
interface NewBitmapSection {
  readonly name: string;
  readonly granularityBits: number;
  readonly auto: boolean;
  readonly inUse: boolean;
  /** What is stored already, or bits to be written. */
  readonly from: BitmapSection | Bitmap;
}

/**
 * The bitmaps that an image keeps, beside the DirtyBitmaps of the device that the image is:
 *
 *     const stored = await ImageBitmaps.open(image);
 *     stored.restore(bitmaps);            // no bits are read
 *     await stored.beforeWrite();         // before each write; then bitmaps.record(...)
 *     await stored.store();               // at the end
 *
 * Crash safety. Before the first write that a stored bitmap records, and with any merge into one, its entry is marked
 * as in use, durably, so that a crash leaves it inconsistent; what nothing is added to stays good. Who did not await
 * beforeWrite has the mark made on the spot, where the file is a local one, or is refused. Storing writes bits, tables and directory into new
 * clusters, flushes, makes the header name the new directory, flushes, and only then gives the old clusters back. So
 * a crash leaves all of the old state or all of the new one, and at worst clusters that nothing refers to.
 */
export class ImageBitmaps implements BitmapStore {
  readonly #image: WritableImage;
  readonly #turns = new Serial();
  #sections: BitmapSection[];
  /** What records and is not marked as in use yet. */
  readonly #unmarked = new Set<string>();
  /** What was marked since the image was opened: its bits are good, but the image says otherwise. */
  readonly #marked = new Set<string>();
  /** Of these, what was merged into and recorded nothing: see {@link giveUp}. */
  readonly #merged = new Set<string>();
  /** What is going to be marked in the directory that is being stored; undefined while none is. */
  #storing?: ReadonlySet<string>;
  /** The whole clusters of the directory as they are in the image, for marks that cannot wait. */
  #directory?: Uint8Array;
  #bitmaps?: DirtyBitmaps;

  private constructor(image: WritableImage, sections: BitmapSection[]) {
    this.#image = image;
    this.#sections = sections;
  }

  /**
   * Every opening that may give clusters back comes through here, and so looks first whether tables share any.
   *
   * @throws LacunaError ERR_QCOW2_CORRUPT, ERR_QCOW2_UNSUPPORTED
   */
  static async open(image: WritableImage): Promise<ImageBitmaps> {
    const { header, file, reader } = image;
    const options = { file: reader, readOnly: false };
    const sections = await readBitmapSections(header.current, file.name, options);
    const { snapshots, length } = await readSnapshotTable(file, header.current);
    refuseOverlaps({
      header: header.current,
      image: file.name,
      snapshots,
      snapshotBytes: length,
      bitmaps: sections.map(({ entry }) => entry),
    });
    const bitmaps = new ImageBitmaps(image, sections);
    await bitmaps.#readDirectory();
    return bitmaps;
  }

  /** Bitmaps that the image has. */
  get count(): number {
    return this.#sections.length;
  }

  /** Registers all bitmaps. Those that were recording do so again. */
  restore(bitmaps: DirtyBitmaps): void {
    bitmaps.register(...this.#sections);
    bitmaps.store = this;
    this.#bitmaps = bitmaps;
    this.#noteRecording();
  }

  /** What is not stored lacks nothing, and what is marked lacks nothing new. */
  beforeRecording(name: string): void {
    if (this.#has(name) && !this.#marked.has(name)) this.#unmarked.add(name);
  }

  /**
   * @throws LacunaError ERR_BITMAP_BUSY while the bitmaps are stored without a mark for this one, or where its mark
   * must be waited for; ERR_DEVICE_IO.
   */
  beforeAdding(name: string, by: Addition): void {
    if (this.#storing !== undefined && !this.#storing.has(name)) {
      throw this.#busy(name, 'its image is being stored: wait for that, then repeat this');
    }
    if (by === 'record') this.#merged.delete(name);
    if (!this.#has(name) || this.#marked.has(name)) return;
    this.#unmarked.add(name);
    this.#markNow(name);
    if (by === 'merge') this.#merged.add(name);
  }

  /** Whether {@link beforeWrite} has something to do. */
  get mustMark(): boolean {
    return this.#unmarked.size > 0 || this.#storing !== undefined;
  }

  /** Marks bitmaps durably, so that dirt can be added to them where nothing can be marked on the spot. */
  mark(names: readonly string[]): Promise<void> {
    return this.#turns.run(async () => {
      const fresh = names.filter((name) => this.#has(name) && !this.#marked.has(name));
      for (const name of fresh) this.#unmarked.add(name);
      await this.#mark();
      for (const name of fresh) this.#merged.add(name);
    });
  }

  /**
   * Takes back the marks of what was merged into, where nothing is to be stored: the disk has not changed, so that
   * what is stored is as good as it was.
   */
  giveUp(): Promise<void> {
    return this.#turns.run(async () => {
      // A file that could not be flushed is not written any more, and who wrote knows.
      if (!this.#image.file.broken) await this.#writeMarks(this.#merged, false);
      this.#merged.clear();
    });
  }

  /** To be awaited before a write is made, while {@link mustMark}: makes durable that bitmaps will lack it. */
  beforeWrite(): Promise<void> {
    return this.#turns.run(() => this.#mark());
  }

  /**
   * To be awaited before the disk gets another size: bits are loaded, and what is stored, for the old size, is marked.
   */
  async beforeResize(): Promise<void> {
    for (const { name, inconsistent } of this.#sections) {
      if (inconsistent) continue;
      // It may have been removed since it was stored.
      if (this.#bitmaps?.has(name)) await this.#bitmaps.load(name);
      this.#unmarked.add(name);
    }
    await this.beforeWrite();
  }

  /**
   * Stores the persistent bitmaps as they are now; writes nothing where the image has them like that. What records and
   * goes on, while the image is `open`, stays marked.
   *
   * @throws LacunaError ERR_QCOW2_UNSUPPORTED where the image cannot keep them; what reading and writing throws. The
   * image has the old ones then.
   */
  store({ open = false } = {}): Promise<void> {
    return this.#turns.run(() => this.#store(open));
  }

  get #owner(): BitmapOwner {
    const { header, file } = this.#image;
    return { image: file.name, geometry: header.geometry, size: header.current.size };
  }

  #has(name: string): boolean {
    return this.#sections.some((section) => section.name === name);
  }

  /** What records will lack writes. */
  #noteRecording(): void {
    this.#unmarked.clear();
    for (const name of this.#bitmaps?.recordingNames ?? []) this.beforeRecording(name);
  }

  async #mark(): Promise<void> {
    const names = new Set(this.#unmarked);
    await this.#writeMarks(names, true);
    for (const name of names) this.#noteMarked(name);
  }

  #noteMarked(name: string): void {
    this.#unmarked.delete(name);
    this.#marked.add(name);
  }

  async #writeMarks(names: ReadonlySet<string>, inUse: boolean): Promise<void> {
    const place = this.#directoryPlace();
    const directory = this.#directory;
    if (names.size === 0 || place === undefined || directory === undefined) return;
    const { file } = this.#image;
    const { offset, size } = place;
    // Each mark lies in one sector, and no write has been made yet: some of the marks without the others do no harm.
    for (const at of markInUse(directory.subarray(0, size), names, inUse)) {
      await file.writeSpan(offset, directory, { from: at, to: at + 4 });
    }
    await file.flush();
  }

  /** As #mark, without waiting. */
  #markNow(name: string): void {
    const place = this.#directoryPlace();
    const directory = this.#directory;
    if (place === undefined || directory === undefined) return;
    const { file } = this.#image;
    for (const at of markInUse(directory.subarray(0, place.size), new Set([name]))) {
      const span = { from: at, to: at + 4 };
      const sector = alignDown(at, file.unit);
      if (file.writeNow(place.offset + sector, file.sectorsOf(directory, span))) continue;
      markInUse(directory.subarray(0, place.size), new Set([name]), false);
      const why = 'it must be marked as in use, which this file takes time for: await mark() first';
      throw this.#busy(name, why);
    }
    this.#noteMarked(name);
  }

  #directoryPlace(): { offset: number; size: number } | undefined {
    const extension = validBitmaps(this.#image.header.current);
    return extension && { offset: extension.directoryOffset, size: extension.directorySize };
  }

  /** Room for a directory of so many bytes, in whole clusters. */
  #roomFor(size: number): Uint8Array {
    return new Uint8Array(alignUp(size, this.#owner.geometry.clusterSize));
  }

  async #readDirectory(): Promise<void> {
    const place = this.#directoryPlace();
    if (place === undefined) return;
    const directory = this.#roomFor(place.size);
    await this.#image.file.read(place.offset, directory);
    this.#directory = directory;
  }

  #busy(name: string, why: string): LacunaError {
    const { name: device } = this.#image.file;
    const message = `cannot add to bitmap '${name}' of ${device}: ${why}`;
    return new LacunaError('ERR_BITMAP_BUSY', message, { device, retryable: true });
  }

  async #store(open: boolean): Promise<void> {
    let sections: NewBitmapSection[] = [];
    try {
      sections = await this.#newSections(open);
      this.#check(sections);
      if (!this.#isStored(sections)) await this.#write(sections);
    } finally {
      this.#storing = undefined;
      for (const { from } of sections) if (from instanceof Bitmap) from.free();
    }
    // What began to record meanwhile is marked before anybody believes that it is.
    this.#noteRecording();
    if (open) await this.#mark();
  }

  /** The persistent bitmaps of this moment. */
  async #newSections(open: boolean): Promise<NewBitmapSection[]> {
    const bitmaps = this.#bitmaps;
    if (bitmaps === undefined) return [];
    for (const { name, persistent, inconsistent } of bitmaps.list()) {
      if (persistent && !inconsistent && bitmaps.unchanged(name) === null) await bitmaps.load(name);
    }
    const sections: NewBitmapSection[] = [];
    // From here on, what is added would be missing in what is stored: the bitmaps ask again.
    const infos = bitmaps.list();
    const stay = infos.filter(({ recording }) => open && recording).map(({ name }) => name);
    this.#storing = new Set(stay.filter((name) => this.#marked.has(name) || !this.#has(name)));
    bitmaps.store = this;
    for (const info of infos) {
      const { name, granularity, persistent, recording, inconsistent } = info;
      if (!persistent) continue;
      const stored = this.#sections.find((section) => section.name === name);
      const unchanged = inconsistent || bitmaps.unchanged(name) !== null;
      sections.push({
        name,
        granularityBits: Math.log2(granularity),
        auto: inconsistent ? (stored?.entry.auto ?? false) : recording,
        inUse: inconsistent || (open && recording),
        from: unchanged && stored !== undefined ? stored : bitmaps.union(name),
      });
    }
    return sections;
  }

  #check(sections: readonly NewBitmapSection[]): void {
    const owner = this.#owner;
    const { version } = this.#image.header.current;
    if (version === 2 && sections.length > 0) {
      const advice = 'make it one of version 3 with "qemu-img amend -o compat=v3"';
      throw unsupported(owner.image, 'is of version 2, which keeps no bitmaps', advice);
    }
    if (
      sections.length > MAX_BITMAPS ||
      bitmapDirectoryBytes(sections) > MAX_BITMAP_DIRECTORY_BYTES
    ) {
      const needed = `would keep ${sections.length} bitmaps, and at most ${MAX_BITMAPS} are allowed`;
      throw unsupported(owner.image, needed, 'remove some, or choose shorter names');
    }
    for (const section of sections) {
      const why = section.from instanceof Bitmap ? whyNotStorable(section, owner) : undefined;
      if (why !== undefined)
        throw unsupported(owner.image, `cannot keep bitmap '${section.name}'`, why);
    }
  }

  /** Whether the image has exactly these. */
  #isStored(sections: readonly NewBitmapSection[]): boolean {
    if (sections.length !== this.#sections.length) return false;
    return sections.every(({ from, auto, inUse }, i) => {
      const stored = this.#sections[i];
      const marked = stored.entry.inUse || this.#marked.has(stored.name);
      return from === stored && stored.entry.auto === auto && marked === inUse;
    });
  }

  async #write(sections: readonly NewBitmapSection[]): Promise<void> {
    const { file, header, allocator } = this.#image;
    const old = { extension: validBitmaps(header.current), sections: this.#sections };
    const writer = new BitmapWriter(this.#owner, file, allocator);
    const entries: BitmapEntry[] = [];
    let extension: BitmapsExtension | undefined;
    let directory: Uint8Array | undefined;
    try {
      for (const section of sections) entries.push(await this.#writeBits(section, writer));
      if (entries.length > 0) {
        const encoded = encodeBitmapDirectory(entries);
        const directoryOffset = await writer.write(encoded);
        extension = { count: entries.length, directorySize: encoded.length, directoryOffset };
        directory = this.#roomFor(encoded.length);
        directory.set(encoded);
      }
      await allocator.writeBack();
      await file.flush();
    } catch (error) {
      // At worst the clusters leak, and what went wrong first says more.
      await allocator.free(writer.runs).catch(() => {});
      throw error;
    }
    await nameBitmapDirectory(file, header, extension);
    this.#adopt(entries);
    this.#directory = directory;
    const kept = new Set(entries.map(({ tableOffset }) => tableOffset));
    await allocator.free(await this.#leftBy(old, kept));
    await allocator.writeBack();
  }

  async #writeBits(section: NewBitmapSection, writer: BitmapWriter): Promise<BitmapEntry> {
    const { name, granularityBits, auto, inUse, from } = section;
    if (from instanceof BitmapSection) return { ...from.entry, auto, inUse };
    return { name, granularityBits, auto, inUse, ...(await writer.writeBits(from)) };
  }

  #adopt(entries: readonly BitmapEntry[]): void {
    const home = { owner: this.#owner, file: this.#image.reader, readOnly: false };
    const useless = this.#sections.filter(({ inconsistent }) => inconsistent);
    this.#merged.clear();
    const inconsistent = new Set(useless.map(({ name }) => name));
    this.#marked.clear();
    this.#sections = entries.map((entry) => {
      // Marked only because it goes on: its bits are good.
      const isMarked = entry.inUse && !inconsistent.has(entry.name);
      if (isMarked) this.#marked.add(entry.name);
      return new BitmapSection({ ...entry, inUse: entry.inUse && !isMarked }, home);
    });
  }

  /** Clusters that only an earlier directory refers to. Where its tables are damaged, some may leak. */
  async #leftBy(old: StoredState, kept: ReadonlySet<number>): Promise<Run[]> {
    const { clusterSize } = this.#owner.geometry;
    const runs: Run[] = [];
    const add = (offset: number, bytes: number) => {
      const count = Math.ceil(bytes / clusterSize);
      const taken = this.#image.header.metadataIn(offset, offset + count * clusterSize);
      if (taken === undefined) runs.push({ offset, count });
    };
    if (old.extension !== undefined) {
      add(old.extension.directoryOffset, old.extension.directorySize);
    }
    for (const section of old.sections) {
      const { tableOffset, tableEntries } = section.entry;
      if (kept.has(tableOffset)) continue;
      const table = await section.readTable().catch(() => new Float64Array(0));
      for (const offset of table) if (offset > BitmapCluster.allDirty) add(offset, clusterSize);
      add(tableOffset, tableEntries * 8);
    }
    return runs;
  }
}
