import { LacunaError } from '../../../../errors/index.js';
import { Context, type ExtentList, isDirtyContext } from '../../../../extent/index.js';
import { RunKind, type Snapshot, validBitmaps } from '../../../../qcow2/index.js';
import type {
  BackingName,
  BlockDevice,
  Capabilities,
  CopyRange,
  Driver,
  ImageDetails,
  KeptBitmaps,
  Limits,
  Location,
  Opening,
  Range,
  WriteOptions,
  ZeroOptions,
} from '../../../contract/index.js';
import type { OpenBitmaps } from '../bitmaps/index.js';
import { FixedWriter, type Growth, type GuestWriter, longestZero } from '../in-place/index.js';
import { type Qcow2Description, readPadded } from '../io/index.js';
import {
  ChainStatus,
  CONTEXTS,
  describeMissing,
  detailsOf,
  Image,
  RunWalk,
  TableSlices,
  warningsOf,
} from '../read/index.js';
import { type OpenedParts, openParts } from './chain.js';

const GIB = 1024 ** 3;

/** A qcow2 image with its backing files; writable where it was opened so, and is no snapshot. */
export class Qcow2Driver implements Driver {
  readonly name: string;
  /** As it was opened, with every file that was found through the image. */
  readonly description: Qcow2Description;
  readonly size: number;
  readonly limits: Limits;
  capabilities: Capabilities;
  /** Of the image and of every image below it. */
  warnings: readonly string[];
  readonly missing: readonly Range[];
  readonly #image: Image;
  #backing?: BlockDevice;
  readonly #devices: readonly BlockDevice[];
  readonly #status: ChainStatus;
  readonly #slices: TableSlices;
  readonly copyFrom?: Driver['copyFrom'];
  readonly #snapshots: readonly Snapshot[];
  #writer?: GuestWriter;
  #bitmaps?: OpenBitmaps;
  /** Why the bitmaps of the image cannot be read. */
  #unread?: LacunaError;

  private constructor(
    image: Image,
    description: Qcow2Description,
    { devices, backing, snapshots, missing }: Opened,
    writable: boolean,
  ) {
    const { clusterSize, l2Span } = image.geometry;
    const isFixed = writable && description.mapping !== undefined;
    const { capabilities, limits } = image.data;
    // Only whole clusters are compressed.
    const unit = description.compress ? clusterSize : 1;
    this.name = image.name;
    this.description = description;
    this.size = image.size;
    this.#image = image;
    this.#backing = backing;
    this.#devices = devices;
    this.#status = new ChainStatus(image, backing);
    this.#slices = new TableSlices(image);
    this.#snapshots = snapshots;
    this.missing = missing;
    this.warnings = [
      ...warningsOf(image.header, image.name),
      ...describeMissing(image.name, missing),
      ...(backing?.warnings ?? []),
    ];
    this.limits = {
      minimum: writable ? Math.max(limits.minimum, unit) : 1,
      preferred: clusterSize,
      maximum: GIB,
      maximumZero: longestZero(l2Span),
      zeroAlignment: clusterSize,
      discardAlignment: clusterSize,
    };
    // Version 2 cannot say that clusters read as zero, where something lies below.
    const canZero = writable && (image.header.version > 2 || backing === undefined);
    this.capabilities = {
      write: writable,
      zero: isFixed ? capabilities.zero : canZero,
      fastZero: isFixed ? capabilities.fastZero : canZero,
      discard: writable && !isFixed,
      flush: writable,
      contexts: CONTEXTS,
      // A backing file that is no image may know little of its holes; the image itself knows all.
      exactStatus: backing?.capabilities.exactStatus ?? true,
      multiConnection: !writable || (isFixed && capabilities.multiConnection),
      knownZero: false,
    };
    if (isFixed) this.copyFrom = (source, range) => this.#copyInPlace(source, range);
  }

  /**
   * Opens an image and, through it, its backing files.
   *
   * @throws LacunaError ERR_QCOW2_CORRUPT, ERR_QCOW2_UNSUPPORTED, ERR_IMAGE_CHAIN, or that of a file.
   */
  static async open(description: Qcow2Description, opening: Opening): Promise<Qcow2Driver> {
    const parts = await openParts(description, opening);
    try {
      const image = await Image.open(parts);
      const writable = description['read-only'] !== true && parts.snapshot === undefined;
      const missing = await missingIn(image, parts, opening.signal);
      const driver = new Qcow2Driver(image, parts.description, { ...parts, missing }, writable);
      if (writable) await driver.#makeWritable(parts, opening);
      // Bitmaps speak of the disk as it is now, not of what a snapshot kept.
      else if (parts.snapshot === undefined) await driver.#readBitmaps(parts, opening);
      return driver;
    } catch (error) {
      await Promise.allSettled(parts.devices.map((device) => device.close()));
      throw error;
    }
  }

  async #makeWritable(
    { header, file, dataFile, backing }: OpenedParts,
    { live = false, unrecorded = false }: Opening,
  ): Promise<void> {
    const { mapping, compress } = this.description;
    checkCompress(this.description, this.#image);
    if (mapping !== undefined) {
      this.#writer = new FixedWriter(this.#image, this.#slices, backing);
      return;
    }
    // Loaded when they are needed, as most images are read, or written in place.
    const { compressorFor, ImageWriter } = await import('../write/index.js');
    const { refuseCut } = await import('../repair/index.js');
    const { OpenBitmaps } = await import('../bitmaps/index.js');
    const parts = {
      header,
      file,
      dataFile,
      // A longer one may come in its place.
      backingSize: backing === undefined ? 0 : live ? Number.POSITIVE_INFINITY : backing.size,
      ...(compress && { compress: await compressorFor(header.compression) }),
    };
    const writer = await ImageWriter.open(parts, (offset, target) => this.#read(offset, target));
    await refuseCut({ header, file, dataFile, allocator: writer.allocator });
    this.#image.follow(writer.mapping);
    this.#writer = writer;
    if (live) this.#bitmaps = await OpenBitmaps.lend(writer, file);
    else this.#show(await OpenBitmaps.record(writer, file, unrecorded));
  }

  /** A disk can be read whose bitmaps cannot, but nobody shall wonder where they are. */
  async #readBitmaps({ header, file }: OpenedParts, { live = false }: Opening): Promise<void> {
    if (validBitmaps(header) === undefined) return;
    const { OpenBitmaps } = await import('../bitmaps/index.js');
    try {
      const bitmaps = await OpenBitmaps.read(header, file);
      if (live) this.#bitmaps = bitmaps;
      else this.#show(bitmaps);
    } catch (error) {
      if (!(error instanceof LacunaError)) throw error;
      this.#unread = error;
      const told = `The bitmaps of ${this.name} cannot be read, only its disk: ${error.message}`;
      this.warnings = [...this.warnings, told];
    }
  }

  get details(): ImageDetails {
    const header = this.#writer?.current ?? this.#image.header;
    return detailsOf(header, this.#snapshots, chainOf(this.#backing));
  }

  get keeps(): KeptBitmaps | undefined {
    return this.#bitmaps?.kept;
  }

  get forgotten(): LacunaError | undefined {
    return this.#devices.map(({ forgotten }) => forgotten).find((each) => each !== undefined);
  }

  changedBelow(): void {
    this.#status.changedBelow();
  }

  endBacking(): void {
    this.#backing = undefined;
    this.#status.endBacking();
  }

  nameBacking(backing: BackingName | null): Promise<void> {
    return this.#writer!.nameBacking(backing);
  }

  checkBackingName(backing: BackingName | null): void {
    this.#writer!.checkBackingName(backing);
  }

  whyNoContext(context: string): LacunaError | undefined {
    if (!isDirtyContext(context)) return undefined;
    const { name } = this;
    const bitmap = context.slice(Context.dirtyPrefix.length);
    const told = { device: name };
    if (this.#bitmaps?.isBroken(context)) {
      const message = `bitmap '${bitmap}' of ${name} is inconsistent: it lacks writes, for the image was not closed after them. Make a full copy, then remove the bitmap and add it again`;
      return new LacunaError('ERR_BITMAP_INCONSISTENT', message, told);
    }
    if (this.description.snapshot !== undefined) {
      const message = `bitmap '${bitmap}' of ${name} tells of the disk as it is now, not of the snapshot "${this.description.snapshot}": leave one of them out`;
      return new LacunaError('ERR_CONTEXT_UNKNOWN', message, told);
    }
    if (this.#unread === undefined) return undefined;
    const message = `the bitmaps of ${name} cannot be read: ${this.#unread.message}`;
    return new LacunaError('ERR_CONTEXT_UNKNOWN', message, { ...told, cause: this.#unread });
  }

  #show(bitmaps: OpenBitmaps | undefined): void {
    if (bitmaps === undefined) return;
    this.#bitmaps = bitmaps;
    this.capabilities = { ...this.capabilities, contexts: [...CONTEXTS, ...bitmaps.contexts] };
  }

  read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const writer = this.#writer;
    if (writer === undefined) return this.#read(offset, target, signal);
    return writer.reading(offset, target.byteLength, () => this.#read(offset, target, signal));
  }

  async #read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const length = target.byteLength;
    const walk = new RunWalk(this.#image, offset, offset + length);
    for (;;) {
      const more = walk.next();
      if (!(more instanceof Promise ? await more : more)) return;
      const at = walk.offset - offset;
      const piece = walk.length === length ? target : target.subarray(at, at + walk.length);
      await this.#readRun(walk, piece, signal);
    }
  }

  async #readRun(run: RunWalk, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    switch (run.kind) {
      case RunKind.data:
        return readPadded(this.#image.data, run.host, target, signal);
      case RunKind.compressed: {
        const inside = run.offset % this.#image.geometry.clusterSize;
        return this.#image.readCompressed(run, inside, target);
      }
      case RunKind.unallocated:
        if (this.#backing !== undefined) {
          return readPadded(this.#backing, run.offset, target, signal);
        }
    }
    target.fill(0);
  }

  write(offset: number, source: Uint8Array, options: WriteOptions): Promise<void> {
    return this.#writer!.write(offset, source, options);
  }

  zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    return this.#writer!.zero(offset, length, options);
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#writer!.discard(offset, length);
  }

  flush(): Promise<void> {
    return this.#writer!.flush();
  }

  /** Makes the disk larger; this opening goes on with the size that it had. See {@link ImageWriter.grow}. */
  async grow(size: number, how?: Growth): Promise<void> {
    const grow = () => this.#writer!.grow(size, how);
    await (this.#bitmaps?.grow(size, grow) ?? grow());
  }

  /** Makes the disk smaller; this opening is good for nothing else then. See {@link ImageWriter.shrink}. */
  async shrink(size: number): Promise<void> {
    const shrink = () => this.#writer!.shrink(size);
    await (this.#bitmaps?.shrink(size, shrink) ?? shrink());
  }

  async extents(
    offset: number,
    length: number,
    contexts: readonly string[],
    signal?: AbortSignal,
  ): Promise<ExtentList[]> {
    const others = contexts.filter((context) => !isDirtyContext(context));
    const known =
      others.length === 0 ? [] : await this.#status.extents(offset, length, others, signal);
    const lists: ExtentList[] = [];
    for (const context of contexts) {
      const list = known[others.indexOf(context)];
      lists.push(list ?? (await this.#bitmaps!.extents(context, offset, length)));
    }
    return lists;
  }

  async locate(offset: number, length: number): Promise<Location> {
    // What is written meanwhile may move what lies there.
    const isFixed = this.#writer instanceof FixedWriter;
    if (this.#writer !== undefined && !isFixed) return { offset, length };
    if (this.#image.rescue) return { offset, length };
    const run = await this.#slices.find(offset, offset + length);
    if (run.kind === RunKind.data) return locateIn(this.#image.data, run.host, run.length);
    if (run.kind === RunKind.unallocated && this.#backing !== undefined && !isFixed) {
      return locateIn(this.#backing, offset, run.length);
    }
    return { offset, length: run.length };
  }

  /** Lets the file copy into clusters that are mapped already. */
  async #copyInPlace(source: Driver, range: CopyRange): Promise<boolean> {
    const { sourceOffset, targetOffset, length } = range;
    for (let done = 0; done < length; ) {
      const place = await this.locate(targetOffset + done, length - done);
      if (place.driver?.copyFrom === undefined) return false;
      const from = { sourceOffset: sourceOffset + done, length: place.length };
      const piece = { ...from, targetOffset: place.offset };
      if (!(await place.driver.copyFrom(source, piece))) return false;
      done += place.length;
    }
    return true;
  }

  /** Bitmaps may only be said to be whole when everything that they tell of is there. */
  async #finish(): Promise<void> {
    if (this.#writer === undefined) return;
    await this.#writer.finish();
    await this.#bitmaps?.store();
  }

  async close(): Promise<void> {
    const flushed = await Promise.allSettled([this.#finish()]);
    this.#bitmaps?.free();
    await this.#status.close();
    this.#image.free();
    const closed = await Promise.allSettled(this.#devices.map((device) => device.close()));
    for (const result of [...flushed, ...closed])
      if (result.status === 'rejected') throw result.reason;
  }
}

/** What a file of the chain has lost, where that can be read as zeroes. */
async function missingIn(
  image: Image,
  { rescue, backing }: OpenedParts,
  signal?: AbortSignal,
): Promise<readonly Range[]> {
  const below = backing?.missing ?? [];
  if (!rescue && below.length === 0) return [];
  const { findMissing } = await import('../repair/index.js');
  return await findMissing(image, below, signal);
}

function checkCompress({ compress, mapping }: Qcow2Description, image: Image): void {
  if (!compress) return;
  if (mapping !== undefined) {
    throw new TypeError('compress maps clusters anew: leave out "mapping" or "compress"');
  }
  if (!image.rules.dataFile) return;
  const message = `${image.name} keeps its clusters in a data file, where none can be compressed: leave out "compress"`;
  throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: image.name });
}

interface Opened {
  readonly devices: readonly BlockDevice[];
  readonly backing?: BlockDevice;
  readonly snapshots: readonly Snapshot[];
  readonly missing: readonly Range[];
}

/** Behind the end of a file everything is zero, and kept nowhere; some devices do not tell where they keep their bytes. */
async function locateIn(device: BlockDevice, offset: number, length: number): Promise<Location> {
  const there = Math.min(length, device.size - offset);
  if (there <= 0) return { offset, length };
  return device.locate?.(offset, there) ?? { offset, length: there };
}

function chainOf(backing: BlockDevice | undefined): ImageDetails['chain'] {
  if (backing === undefined) return [];
  const { name, size, description, details } = backing;
  return [{ name, driver: description?.driver ?? 'unknown', size }, ...(details?.chain ?? [])];
}
