import type { Arena, Bitmap, DirtyBitmaps } from '../../bitmap/index.js';
import { LacunaError } from '../../errors/index.js';
import { checkGiven, closeAfter, optionCheck } from '../../util/index.js';
import { A_SOURCE, type BlockDevice, type DeviceDescription } from '../contract/index.js';
import { checkDescription, fileOf, imageOf, parseDescription } from '../describe/index.js';
import type { ImageBitmaps } from '../drivers/qcow2/bitmaps/index.js';
import type { OpenOptions } from '../open/index.js';
import { openImageFile } from './image-file.js';

/** How the bitmaps of an image are opened; see {@link OpenOptions} for what has no words of its own. */
export interface BitmapImageOptions
  extends Pick<OpenOptions, 'writable' | 'forceShare' | 'format' | 'signal'> {
  /** Where bits are loaded to; default the arena of this thread. */
  readonly arena?: Arena;
}

const checkBitmapImageOptions = optionCheck<BitmapImageOptions>({
  writable: 'flag',
  forceShare: 'flag',
  format: 'any',
  signal: 'signal',
  arena: 'any',
});

/**
 * The bitmaps that a qcow2 image at rest keeps, to be looked at and changed. Only the image's own file is opened; no
 * bits are read before somebody asks for them.
 *
 *     await using image = await openBitmaps('disk.qcow2', { writable: true });
 *     image.bitmaps.add({ name: 'b0', persistent: true });
 *     await image.store();
 */
export class BitmapImage implements AsyncDisposable {
  /** How a person would name the image. */
  readonly name: string;
  /** Commands and questions as for a device that is written; what they change is kept by {@link store}. */
  readonly bitmaps: DirtyBitmaps;
  readonly #file: BlockDevice;
  readonly #stored?: ImageBitmaps;

  private constructor(file: BlockDevice, bitmaps: DirtyBitmaps, stored?: ImageBitmaps) {
    this.name = file.name;
    this.bitmaps = bitmaps;
    this.#file = file;
    this.#stored = stored;
  }

  /** @internal See {@link openBitmaps}. */
  static async open(file: BlockDevice, options: BitmapImageOptions): Promise<BitmapImage> {
    // Loaded when it is needed, as most devices are not images.
    const { openStoredBitmaps } = await import('./stored-bitmaps.js');
    const { bitmaps, stored } = await openStoredBitmaps(file, options);
    return new BitmapImage(file, bitmaps, stored);
  }

  /**
   * A copy of the bits of a bitmap; the caller owns it.
   *
   * @throws LacunaError ERR_BITMAP_UNKNOWN, ERR_BITMAP_INCONSISTENT, ERR_BITMAP_CORRUPT, ERR_QCOW2_CORRUPT
   */
  async load(name: string): Promise<Bitmap> {
    return (await this.bitmaps.load(name)).snapshot();
  }

  /**
   * Makes the image keep the persistent bitmaps as they are now. After a crash it has all of the old ones or all of
   * these.
   *
   * @throws LacunaError ERR_DEVICE_UNSUPPORTED where the image is open for reading; ERR_QCOW2_UNSUPPORTED where it
   * cannot keep them.
   */
  async store(): Promise<void> {
    if (this.#stored !== undefined) return this.#stored.store();
    throw this.#readOnly('store');
  }

  #readOnly(action: string): LacunaError {
    const message = `${this.name} is open for reading: open it for writing to ${action} bitmaps`;
    return new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: this.name });
  }

  /**
   * Marks stored bitmaps as in use, durably: then dirt can be added to them. A local file needs no call of this, since
   * there the mark is made on the spot; elsewhere recording and merging fail with ERR_BITMAP_BUSY without it. After a
   * crash what is marked is inconsistent, until {@link store} has stored it.
   *
   * @throws LacunaError ERR_DEVICE_IO, ERR_DEVICE_UNSUPPORTED where the image is open for reading.
   */
  async mark(...names: readonly string[]): Promise<void> {
    if (this.#stored === undefined) throw this.#readOnly('mark');
    await this.#stored.mark(names);
  }

  /**
   * Closes the image; what was not stored is lost. What recorded writes is inconsistent then; what was only merged into
   * is as it was.
   */
  async close(): Promise<void> {
    this.bitmaps.free();
    await closeAfter(
      async () => this.#stored?.giveUp(),
      () => this.#file.close(),
    );
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Opens the bitmaps of a qcow2 image, by its path or description.
 *
 * @throws TypeError if the description is not valid; LacunaError ERR_DEVICE_FORMAT where it is no qcow2 image,
 * ERR_DEVICE_OPEN, ERR_DEVICE_LOCKED, ERR_DEVICE_UNSUPPORTED where a snapshot is named, ERR_QCOW2_CORRUPT,
 * ERR_QCOW2_UNSUPPORTED.
 */
export async function openBitmaps(
  source: string | DeviceDescription,
  options: BitmapImageOptions = {},
): Promise<BitmapImage> {
  checkGiven('openBitmaps', 'source', source, A_SOURCE);
  checkBitmapImageOptions('openBitmaps', options);
  const { format, writable = false } = options;
  const given = typeof source === 'string' ? parseDescription(source, { format }) : source;
  const description = checkDescription(given);
  const image = imageOf(description);
  if (image === undefined) throw notKept(source);
  const { snapshot, file: own } = image;
  if (snapshot !== undefined) throw ofSnapshot(snapshot, own);
  const file = await openImageFile(own, { ...options, writable });
  try {
    return await BitmapImage.open(file, options);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Bitmaps tell what was written until now, and a snapshot is from before. */
function ofSnapshot(snapshot: string, file: DeviceDescription): LacunaError {
  const name = fileOf(file)?.filename ?? 'The image';
  const message = `${name} is named with snapshot "${snapshot}", which has no bitmaps: leave "snapshot" out for those of the disk as it is now`;
  return new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: name });
}

function notKept(source: string | DeviceDescription): LacunaError {
  const name = typeof source === 'string' ? source : JSON.stringify(source);
  const message = `${name} keeps no bitmaps: only qcow2 images do. If it is one, say so (-f qcow2)`;
  return new LacunaError('ERR_DEVICE_FORMAT', message, { device: name });
}
