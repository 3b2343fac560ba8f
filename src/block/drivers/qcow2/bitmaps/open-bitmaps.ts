import { type DirtyBitmap, DirtyBitmaps } from '../../../../bitmap/index.js';
import { Context, DIRTY, ExtentList } from '../../../../extent/index.js';
import { Autoclear, geometryOf, type Header } from '../../../../qcow2/index.js';
import type { BlockDevice, KeptBitmaps } from '../../../contract/index.js';
import { readerOf } from '../io/index.js';
import type { ImageWriter } from '../write/index.js';
import { ImageBitmaps, readBitmapSections } from './image-bitmaps.js';

/** Pairs of offset and length fetched at once, and the most extents of one answer. */
const BATCH = 1024;
const MOST_EXTENTS = 65_536;

/**
 * The bitmaps of an image that is open as a device: they are contexts of its status, and those that record get what is
 * written. No bits are read before somebody asks for them, and none are written before the image is closed.
 */
export class OpenBitmaps {
  /** The names of the contexts that {@link extents} answers: a bitmap that lacks writes has none. */
  readonly contexts: readonly string[];
  /** Contexts of bitmaps that lack writes. */
  readonly #broken: ReadonlySet<string>;
  readonly #bitmaps: DirtyBitmaps;
  readonly #stored?: ImageBitmaps;
  /** The bitmaps, lent to a caller that records into them itself: see Driver.keeps. */
  readonly kept: KeptBitmaps;

  private constructor(bitmaps: DirtyBitmaps, stored?: ImageBitmaps) {
    this.#bitmaps = bitmaps;
    this.#stored = stored;
    this.kept = {
      bitmaps,
      canAdd: stored !== undefined,
      get mustMark() {
        return stored?.mustMark ?? false;
      },
      mark: async (...names) => {
        if (names.length > 0) await stored?.mark(names);
        await stored?.beforeWrite();
      },
      store: async () => stored?.store({ open: true }),
    };
    const contextsOf = (broken: boolean) =>
      bitmaps
        .list()
        .filter(({ inconsistent }) => inconsistent === broken)
        .map(({ name }) => `${Context.dirtyPrefix}${name}`);
    this.contexts = contextsOf(false);
    this.#broken = new Set(contextsOf(true));
  }

  /** Whether there is a bitmap for this context, which lacks writes. */
  isBroken(context: string): boolean {
    return this.#broken.has(context);
  }

  /**
   * Undefined where the image has none.
   *
   * @throws LacunaError ERR_QCOW2_CORRUPT, ERR_QCOW2_UNSUPPORTED where they cannot be read: the disk can all the same.
   */
  static async read(header: Header, file: BlockDevice): Promise<OpenBitmaps | undefined> {
    const sections = await readBitmapSections(header, file.name, {
      file: readerOf(file),
      readOnly: true,
    });
    if (sections.length === 0) return undefined;
    const bitmaps = bitmapsOf(header);
    bitmaps.register(...sections);
    return new OpenBitmaps(bitmaps);
  }

  /**
   * Lets the bitmaps of an image record what is written to it, unless that does not change what its disk shows;
   * undefined where it has none.
   *
   * @throws LacunaError ERR_QCOW2_CORRUPT, ERR_QCOW2_UNSUPPORTED where they cannot be read: they would lack what is
   * written.
   */
  static async record(
    writer: ImageWriter,
    file: BlockDevice,
    unrecorded = false,
  ): Promise<OpenBitmaps | undefined> {
    const { header, allocator } = writer;
    const image = { reader: readerOf(file), file: writer.file, header, allocator };
    const stored = await ImageBitmaps.open(image);
    if (stored.count === 0) return undefined;
    writer.beforeFirstWrite({ autoclear: Autoclear.bitmaps, run: async () => {} });
    if (unrecorded) return undefined;
    const bitmaps = bitmapsOf(header.current);
    stored.restore(bitmaps);
    writer.beforeEachChange((offset, length) => {
      if (!stored.mustMark) return bitmaps.record(offset, length);
      return stored.beforeWrite().then(() => bitmaps.record(offset, length));
    });
    return new OpenBitmaps(bitmaps, stored);
  }

  /** Bitmaps that somebody else records into, of an image that may have none yet; see Opening.live. */
  static async lend(writer: ImageWriter, file: BlockDevice): Promise<OpenBitmaps> {
    const { header, allocator } = writer;
    const image = { reader: readerOf(file), file: writer.file, header, allocator };
    const stored = await ImageBitmaps.open(image);
    writer.beforeFirstWrite({ autoclear: Autoclear.bitmaps, run: async () => {} });
    const bitmaps = bitmapsOf(header.current);
    stored.restore(bitmaps);
    return new OpenBitmaps(bitmaps, stored);
  }

  /** What is dirty in a range, or in the beginning of it. */
  async extents(context: string, offset: number, length: number): Promise<ExtentList> {
    const name = context.slice(Context.dirtyPrefix.length);
    return dirtyExtents(await this.#bitmaps.load(name), offset, offset + length);
  }

  /** Makes the disk larger by `grow`, and the bitmaps with it; what is added is clean. */
  async grow(size: number, grow: () => Promise<void>): Promise<void> {
    await this.#stored?.beforeResize();
    const before = this.#bitmaps.size;
    // First, as it may find no memory; until the disk is as large, nobody writes where it is not.
    this.#bitmaps.resize(size);
    try {
      await grow();
    } catch (error) {
      this.#bitmaps.resize(before);
      throw error;
    }
  }

  /**
   * Makes the disk smaller by `shrink`, and the bitmaps with it: last, as they lose what lies behind its new end. Where
   * that fails they stay inconsistent in the image.
   */
  async shrink(size: number, shrink: () => Promise<void>): Promise<void> {
    await this.#stored?.beforeResize();
    await shrink();
    this.#bitmaps.resize(size);
  }

  /** Makes the image keep what was recorded. */
  async store(): Promise<void> {
    await this.#stored?.store();
  }

  free(): void {
    this.#bitmaps.free();
  }
}

function bitmapsOf(header: Header): DirtyBitmaps {
  return new DirtyBitmaps({ size: header.size, clusterSize: geometryOf(header).clusterSize });
}

function dirtyExtents(bitmap: DirtyBitmap, offset: number, end: number): ExtentList {
  const list = new ExtentList(offset);
  const pairs = new Float64Array(BATCH * 2);
  for (let count = BATCH; count === BATCH && list.count < MOST_EXTENTS; ) {
    count = bitmap.readRanges(list.end, end, pairs);
    for (let i = 0; i < count * 2; i += 2) {
      list.push(pairs[i] - list.end, 0);
      list.push(pairs[i + 1], DIRTY);
    }
    if (count < BATCH) list.push(end - list.end, 0);
  }
  return list;
}
