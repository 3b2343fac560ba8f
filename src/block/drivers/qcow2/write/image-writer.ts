import { LacunaError, throwIfAborted } from '../../../../errors/index.js';
import {
  Autoclear,
  type Header,
  hasDataFile,
  l1EntriesFor,
  MAX_L1_BYTES,
  type Mapped,
  UNMAPPED,
} from '../../../../qcow2/index.js';
import { alignDown, alignUp, closeAfter, SIZE_LIMIT, Turns } from '../../../../util/index.js';
import {
  type BackingName,
  type BlockDevice,
  RangeLock,
  type WriteOptions,
  type ZeroOptions,
} from '../../../contract/index.js';
import { checkWritable, type Growth, type GuestWriter, longestZero } from '../in-place/index.js';
import { HostFile, LiveHeader } from '../io/index.js';
import { Allocator } from './allocator.js';
import { ClusterCompressor } from './cluster-compressor.js';
import { ClusterWriter } from './cluster-writer.js';
import { ClusterZeroer } from './cluster-zeroer.js';
import type { Compress } from './compress.js';
import { ImageFlusher } from './image-flusher.js';
import { Mapping } from './mapping.js';
import { Preallocator } from './preallocator.js';

/** Autoclear bits that stay true whatever is written here. */
const KNOWN_AUTOCLEAR = Autoclear.rawDataFile;

export interface ImageWriterParts {
  readonly header: Header;
  /** The image's file: a device that grows (see {@link GrowingFile}), or a block device. */
  readonly file: BlockDevice;
  readonly dataFile?: BlockDevice;
  /** Bytes of the image below; 0 where there is none. */
  readonly backingSize: number;
  /** Compresses whole clusters that are written where nothing is allocated. */
  readonly compress?: Compress;
}

/** Reads guest bytes as they are now, inside the disk. */
export type GuestRead = (offset: number, target: Uint8Array) => Promise<void>;

/** What must be done before an image is changed for the first time. */
export interface FirstWrite {
  /** Autoclear bits that it takes care of; all others that are not known here are cleared. */
  readonly autoclear: bigint;
  run(header: LiveHeader): Promise<void>;
}

/**
 * Is told of every range of the disk before it is changed, but not of what is added when the disk grows. The change
 * waits for it, and is not made where it fails.
 */
export type BeforeChange = (offset: number, length: number) => Promise<void> | void;

/**
 * The writing half of an image. It holds the tables that the reading half must look into while the image is open, and
 * keeps requests for the same clusters apart: those that write in place, and reads, run side by side; one that maps
 * clusters anew has them for itself.
 */
export class ImageWriter implements GuestWriter {
  readonly header: LiveHeader;
  readonly mapping: Mapping;
  readonly allocator: Allocator;
  readonly file: HostFile;
  readonly #flusher: ImageFlusher;
  readonly #writer: ClusterWriter;
  readonly #zeroer: ClusterZeroer;
  readonly #preallocator: Preallocator;
  readonly #compressor?: ClusterCompressor;
  readonly #locks = new RangeLock();
  readonly #firstWrites: FirstWrite[] = [];
  #begun?: Promise<void>;
  #tell?: BeforeChange;

  private constructor(
    { dataFile, backingSize, compress }: ImageWriterParts,
    file: HostFile,
    header: LiveHeader,
    { allocator, mapping }: { allocator: Allocator; mapping: Mapping },
    read: GuestRead,
  ) {
    const { geometry, current } = header;
    const data = dataFile === undefined ? undefined : new HostFile(dataFile);
    this.file = file;
    this.header = header;
    this.mapping = mapping;
    this.allocator = allocator;
    this.#flusher = new ImageFlusher({ file, dataFile: data, header, allocator, mapping });
    const place = { data: data ?? file, hasDataFile: data !== undefined };
    const clusters = { geometry, mapping, allocator, ...place };
    this.#preallocator = new Preallocator(clusters);
    this.#writer = new ClusterWriter({
      ...clusters,
      header,
      read: (offset, target) => this.#readPadded(read, offset, target),
    });
    this.#zeroer = new ClusterZeroer({
      image: file.name,
      version: current.version,
      geometry,
      mapping,
      writer: this.#writer,
      backingSize,
      dataFile: data,
      rawDataFile: data !== undefined && (current.autoclear & Autoclear.rawDataFile) !== 0n,
    });
    if (compress === undefined) return;
    const parts = { geometry, mapping, allocator, file, compress };
    this.#compressor = new ClusterCompressor({
      ...parts,
      writer: this.#writer,
      zeroer: this.#zeroer,
    });
  }

  /**
   * @param read must not wait for the writer: it is called while clusters are held.
   * @throws LacunaError ERR_QCOW2_CORRUPT, or ERR_QCOW2_UNSUPPORTED where the image must be repaired first.
   */
  static async open(parts: ImageWriterParts, read: GuestRead): Promise<ImageWriter> {
    const file = new HostFile(parts.file);
    checkWritable(parts.header, file.name);
    checkDataFile(parts);
    const header = new LiveHeader(file, parts.header);
    const allocator = await Allocator.open(file, header);
    const rules = {
      geometry: header.geometry,
      version: parts.header.version,
      dataFile: hasDataFile(parts.header),
      image: file.name,
    };
    const mapping = await Mapping.open(file, header, allocator, rules);
    return new ImageWriter(parts, file, header, { allocator, mapping }, read);
  }

  /** Has something done before the first change, and once only. */
  beforeFirstWrite(first: FirstWrite): void {
    this.#firstWrites.push(first);
  }

  beforeEachChange(tell: BeforeChange): void {
    this.#tell = tell;
  }

  /** Runs a read while nobody maps its clusters anew. */
  reading<T>(offset: number, length: number, read: () => Promise<T>): Promise<T> {
    return this.#hold(offset, offset + length, false, read);
  }

  async write(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    await this.#begin(offset, source.byteLength);
    if (this.#compressor === undefined) await this.#writePlain(offset, source);
    else await this.#writeCompressed(this.#compressor, offset, source);
    await this.#end(options.fua);
  }

  async #writePlain(offset: number, source: Uint8Array): Promise<void> {
    const end = offset + source.byteLength;
    const done = await this.#change(offset, end, false, () =>
      this.#writer.writeInPlace(offset, source),
    );
    if (done === source.byteLength) return;
    const rest = () => this.#writer.write(offset + done, source.subarray(done));
    await this.#change(offset + done, end, true, rest);
  }

  #writeCompressed(compressor: ClusterCompressor, offset: number, source: Uint8Array) {
    const { size } = this.header.current;
    return this.#change(offset, offset + source.byteLength, true, () =>
      compressor.write(offset, source, size),
    );
  }

  async zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    await this.#begin(offset, length);
    const end = offset + length;
    const { size } = this.header.current;
    await this.#change(offset, end, true, () =>
      this.#zeroer.zero(offset, end, size, options.unmap ?? true),
    );
    await this.#end(options.fua);
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.#begin(offset, length);
    const end = offset + length;
    const { size } = this.header.current;
    await this.#change(offset, end, true, () => this.#zeroer.discard(offset, end, size));
    await this.#end();
  }

  /** Makes everything durable that was written. */
  async flush(): Promise<void> {
    await this.#compressor?.end();
    await this.#flusher.flush();
  }

  get current(): Header {
    return this.header.current;
  }

  async nameBacking(backing: BackingName | null): Promise<void> {
    await this.flush();
    await this.header.nameBacking(backing);
  }

  checkBackingName(backing: BackingName | null): void {
    this.header.checkBackingName(backing);
  }

  finish(): Promise<void> {
    return this.flush();
  }

  /**
   * Makes the disk larger; what is added reads as zero, whatever lies below. Where that fails, what was mapped behind its end
   * is given up again.
   *
   * @throws RangeError where it would become smaller, or its L1 table longer than the format's readers take; LacunaError
   * ERR_QCOW2_UNSUPPORTED where it has snapshots that do not know their own size; ERR_ABORTED.
   */
  async grow(size: number, how: Growth = {}): Promise<void> {
    const { geometry, current } = this.header;
    const entries = l1EntriesFor(size, geometry);
    if (size > Number.MAX_SAFE_INTEGER) {
      throw new RangeError(`${size} bytes: sizes end at ${SIZE_LIMIT}`);
    }
    if (!Number.isSafeInteger(size) || size < current.size) {
      throw new RangeError(`${size} bytes: an image of ${current.size} bytes can only grow`);
    }
    this.#checkSnapshots();
    if (entries * 8 > MAX_L1_BYTES) {
      throw new RangeError(`${size} bytes are too many for clusters of ${geometry.clusterSize}`);
    }
    await this.#beginOnce();
    await this.mapping.growL1(entries, () => this.flush());
    // Before the disk has them: a cut in between must not show what lies below, or behind its old end.
    try {
      const turns = new Turns();
      for (let at = current.size; at < size; ) {
        await turns.next();
        throwIfAborted(how.signal);
        const end = Math.min(size, at + longestZero(geometry.l2Span));
        await this.#zeroAdded(at, end, how);
        at = end;
      }
      await this.flush();
    } catch (error) {
      // A file that could not be flushed is not written any more.
      if (!this.file.broken) await this.#forgetBehind(current.size).catch(() => {});
      throw error;
    }
    await this.header.update({ size });
  }

  /**
   * Makes the disk smaller, and gives up what lay behind its new end. Wherever that is cut off, the disk has one size or
   * the other, and all that belongs to it then.
   *
   * @throws RangeError where it would become larger; LacunaError ERR_QCOW2_UNSUPPORTED as {@link grow}.
   */
  async shrink(size: number): Promise<void> {
    const { current } = this.header;
    if (!Number.isSafeInteger(size) || size < 0 || size > current.size) {
      throw new RangeError(`${size} bytes: an image of ${current.size} bytes can only shrink`);
    }
    this.#checkSnapshots();
    await this.#beginOnce();
    await this.flush();
    await this.header.update({ size });
    await this.#forgetBehind(size);
  }

  /** Gives up all that is mapped behind the end of the disk. */
  async #forgetBehind(size: number): Promise<void> {
    const { geometry } = this.header;
    await this.mapping.cutL1(l1EntriesFor(size, geometry), () => this.flush());
    const start = alignUp(size, geometry.clusterSize);
    const end = alignUp(size, geometry.l2Span);
    if (start < end) await this.#change(start, end, true, () => this.#forget(start, end));
    await this.flush();
  }

  /**
   * Says of no cluster any more that it reads as zero, which version 2 cannot: it is unmapped, or holds zeroes where something
   * lies below.
   *
   * @throws LacunaError ERR_ABORTED; what has been spelled stays so.
   */
  async spellZeroes(signal?: AbortSignal): Promise<void> {
    await this.#beginOnce();
    const { l2Span } = this.header.geometry;
    const { l1Size, size } = this.header.current;
    const next = (index: number) => this.mapping.nextUsed(index, l1Size);
    const spell = async () => {
      for (let index = next(0); index < l1Size; index = next(index + 1)) {
        const start = index * l2Span;
        await this.#change(start, start + l2Span, true, () => {
          return this.#zeroer.spell(start, size, signal);
        });
        await this.#end();
      }
    };
    // What is only in memory would leave clusters in the file that nothing names.
    await closeAfter(spell, () => this.flush());
  }

  /** Unmaps clusters of one L2 table. One that maps none of them is neither made nor copied. */
  async #forget(start: number, end: number): Promise<void> {
    const count = (end - start) / this.header.geometry.clusterSize;
    const mapped = await this.mapping.lookUp(start, count);
    const isEmpty = ({ host, compressed, zero }: Mapped) =>
      host === undefined && compressed === undefined && zero === 0;
    if (mapped.every(isEmpty)) return;
    await this.mapping.change(start, count, (before) => (isEmpty(before) ? before : UNMAPPED));
  }

  /** Those of version 2 do not say how large the disk was. */
  #checkSnapshots(): void {
    const { version, snapshotCount } = this.header.current;
    if (version > 2 || snapshotCount === 0) return;
    const { name } = this.file;
    const message = `${name} is of version 2 and has snapshots, which take its size for theirs: delete them before it is resized`;
    throw new LacunaError('ERR_QCOW2_UNSUPPORTED', message, { device: name });
  }

  /** Zeroes what lies behind the end of the disk, where a backing file may be longer. */
  async #zeroAdded(offset: number, end: number, { reserved, signal }: Growth): Promise<void> {
    await this.#change(offset, end, true, async () => {
      await this.#zeroer.addZeroes(offset, end);
      if (reserved === undefined) return;
      const first = alignUp(offset, this.header.geometry.clusterSize);
      await this.#preallocator.map(first, end, { reserved, signal });
    });
    await this.#end();
  }

  async #begin(offset: number, length: number): Promise<void> {
    await this.#beginOnce();
    await this.#tell?.(offset, length);
  }

  /** The first change tells others what it invalidates, before it invalidates it. */
  #beginOnce(): Promise<void> {
    this.#begun ??= this.file.whole(async () => {
      for (const first of this.#firstWrites) await first.run(this.header);
      const kept = this.#firstWrites.reduce(
        (all, { autoclear }) => all | autoclear,
        KNOWN_AUTOCLEAR,
      );
      const autoclear = this.header.current.autoclear & kept;
      if (autoclear !== this.header.current.autoclear) await this.header.update({ autoclear });
    });
    return this.#begun;
  }

  /** Ends a change: much of it in memory is brought into the file. */
  async #end(durable = false): Promise<void> {
    if (durable || this.mapping.isFull) await this.#flusher.flush();
  }

  async #readPadded(read: GuestRead, offset: number, target: Uint8Array): Promise<void> {
    const there = Math.max(0, Math.min(target.length, this.header.current.size - offset));
    if (there < target.length) target.fill(0, there);
    if (there > 0) await read(offset, target.subarray(0, there));
  }

  /**
   * Runs a request that writes. The next flush has something to do when it ends, and not before: a flush that runs
   * meanwhile may have flushed a part of it.
   */
  async #change<T>(
    offset: number,
    end: number,
    alone: boolean,
    request: () => Promise<T>,
  ): Promise<T> {
    try {
      return await this.#hold(offset, end, alone, request);
    } finally {
      this.#flusher.wroteData();
    }
  }

  /** Runs a request while it holds the clusters that it touches. */
  async #hold<T>(
    offset: number,
    end: number,
    alone: boolean,
    request: () => Promise<T>,
  ): Promise<T> {
    const { clusterSize } = this.header.geometry;
    const start = alignDown(offset, clusterSize);
    const hold = this.#locks.acquire(start, alignUp(end, clusterSize), alone);
    try {
      if (hold.ready !== undefined) await hold.ready;
      return await request();
    } finally {
      this.#locks.release(hold);
    }
  }
}

/** A data file that cannot grow must hold the whole disk from the start. */
function checkDataFile({ header, dataFile }: ImageWriterParts): void {
  if (dataFile === undefined || dataFile.size >= header.size) return;
  const message = `${dataFile.name} holds ${dataFile.size} bytes of a disk of ${header.size}: make it larger before the disk is written`;
  throw new LacunaError('ERR_DEVICE_SHORT', message, { device: dataFile.name });
}
