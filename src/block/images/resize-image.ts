/** Makes the disk of a file larger or smaller. */
import { statSync } from 'node:fs';
import { LacunaError } from '../../errors/index.js';
import { Context, readsAsZero } from '../../extent/index.js';
import {
  checkGiven,
  checkKnown,
  closeAfter,
  counted,
  optionCheck,
  SIZE_LIMIT,
} from '../../util/index.js';
import { A_SOURCE, type BlockDevice, Device, type DeviceDescription } from '../contract/index.js';
import { checkDescription, fileOf, imageOf, parseDescription } from '../describe/index.js';
import { growRawFile, type RawPreallocation, resizeRawFile } from '../drivers/file/index.js';
import type { Preallocation } from '../drivers/qcow2/create/index.js';
import type { Qcow2Description } from '../drivers/qcow2/index.js';
import type { Qcow2Driver } from '../drivers/qcow2/open/index.js';
import { describeOpened, type OpenOptions, openDevice, warnOfSignature } from '../open/index.js';
import { openImage } from './change-image.js';

/** How a disk gets another size; see {@link OpenOptions} for what has no words of its own. */
export interface ResizeOptions extends Pick<OpenOptions, 'format' | 'signal'> {
  /** The disk may become smaller: what lies behind its new end is lost. Default false. */
  readonly shrink?: boolean;
  /**
   * What is laid out at once of what is added, as when a file is made; `metadata` only in an image. Nothing that was there
   * before is laid out. Default `off`.
   */
  readonly preallocation?: Preallocation;
}

/** What became of a disk that was resized. */
export interface ResizeReport {
  /** Bytes of the disk before. */
  readonly before: number;
  /** Bytes of the disk now. */
  readonly size: number;
  /** Bytes behind the new end that held data, by what the disk said of them; 0 where it grew. */
  readonly lostData: number;
}

const checkResizeOptions = optionCheck<ResizeOptions>({
  shrink: 'flag',
  preallocation: 'any',
  format: 'any',
  signal: 'signal',
});

const PREALLOCATIONS: readonly string[] = ['off', 'metadata', 'falloc', 'full'];

/** The unit of the size of an image, and the least that readers of the format take. */
const SECTOR = 512;

/**
 * Makes the disk of a raw file or a qcow2 image larger or smaller. What is added reads as zero, whatever lies below. The
 * bitmaps of an image get its new size, with what is added clean; its internal snapshots keep the size that they have.
 * Nobody else may have the file open. After a crash the disk has its old size or the new one.
 *
 * @param size bytes of the disk from now on, or by how many it changes.
 * @throws RangeError if the disk would become smaller without `shrink`, or too large; TypeError if this is neither a file
 *   nor an image; LacunaError ERR_DEVICE_UNSUPPORTED if it has a fixed size, ERR_QCOW2_UNSUPPORTED if an image of version
 *   2 has snapshots, ERR_DEVICE_FORMAT if only its name says that a file is raw and its bytes do not,
 *   ERR_BITMAP_INCONSISTENT; and what `openDevice` throws.
 */
export async function resizeImage(
  source: string | DeviceDescription,
  size: number | { readonly by: number },
  options: ResizeOptions = {},
): Promise<ResizeReport> {
  checkGiven('resizeImage', 'source', source, A_SOURCE);
  checkGiven('resizeImage', 'size', size, 'bytes of the disk from now on, or { by: bytes }');
  checkResizeOptions('resizeImage', options);
  const { format, preallocation = 'off' } = options;
  checkKnown('resizeImage', 'preallocation', preallocation, PREALLOCATIONS);
  const given = typeof source === 'string' ? parseDescription(source, { format }) : source;
  const description = describeOpened(checkDescription(given), { writable: true });
  const image = imageOf(description);
  if (image !== undefined) {
    const readOnly = description['read-only'] === true || image['read-only'] === true;
    return resizeInImage({ ...image, 'read-only': readOnly }, size, options);
  }
  const filename = fileOf(description)?.filename;
  if (filename === undefined) {
    throw new TypeError(
      `driver ${description.driver}: only raw files and qcow2 images are resized here`,
    );
  }
  const isNamedRaw = source === filename && format === undefined;
  return resizeFile({ filename, description, isNamedRaw }, size, options);
}

async function resizeInImage(
  description: Qcow2Description,
  wanted: number | { readonly by: number },
  options: ResizeOptions,
): Promise<ResizeReport> {
  const driver = await openImage(description);
  const device = new Device(driver);
  return closeAfter(
    () => resizeOpened(driver, device, wanted, options),
    () => device.close(),
  );
}

async function resizeOpened(
  driver: Qcow2Driver,
  device: BlockDevice,
  wanted: number | { readonly by: number },
  options: ResizeOptions,
): Promise<ResizeReport> {
  refuseReadOnly(device);
  const size = sizeOf(wanted, device);
  if (size % SECTOR !== 0) {
    const next = Math.ceil(size / SECTOR) * SECTOR;
    throw new RangeError(
      `${size} bytes: the size of an image is a multiple of ${SECTOR}; the next one is ${next}`,
    );
  }
  const lostData = await lossOf(device, size, options);
  if (size < device.size) {
    await driver.shrink(size);
    cutDataFile(driver.description, size);
  } else if (size > device.size) {
    await growImage(driver, size, options);
  }
  return { before: device.size, size, lostData };
}

/** Makes the disk larger; where that fails, a data file is no longer than before. */
async function growImage(
  driver: Qcow2Driver,
  size: number,
  { preallocation = 'off', signal }: ResizeOptions,
): Promise<void> {
  const had = dataFileOf(driver.description)?.size;
  const reserved = preallocation === 'off' ? undefined : preallocation;
  try {
    await driver.grow(size, { reserved, signal });
  } catch (error) {
    try {
      if (had !== undefined) cutDataFile(driver.description, had);
    } catch {
      // It takes room, and nothing more.
    }
    throw error;
  }
}

/** A data file ends where the disk does. */
function cutDataFile(description: Qcow2Description, size: number): void {
  const found = dataFileOf(description);
  if (found !== undefined && found.size > size) resizeRawFile(found.filename, size);
}

/** The file that an image keeps its clusters in, if that is another one. */
function dataFileOf({ 'data-file': dataFile }: Qcow2Description) {
  const filename = fileOf(dataFile)?.filename;
  const stat = filename === undefined ? undefined : statSync(filename, { throwIfNoEntry: false });
  return stat?.isFile() ? { filename: filename!, size: stat.size } : undefined;
}

/** A file that holds a disk as it is. */
interface RawDisk {
  readonly filename: string;
  readonly description: DeviceDescription;
  /** Nothing but its name says that it is raw. */
  readonly isNamedRaw: boolean;
}

async function resizeFile(
  { filename, description, isNamedRaw }: RawDisk,
  wanted: number | { readonly by: number },
  options: ResizeOptions,
): Promise<ResizeReport> {
  const { preallocation = 'off', signal } = options;
  if (preallocation === 'metadata') {
    throw new TypeError(`${filename} is a raw file, which has no metadata: use falloc or full`);
  }
  const device = await openDevice(description, { writable: true, signal });
  const resize = async () => {
    if (!statSync(filename).isFile()) {
      const message = `${filename} is not a regular file, and its size cannot be changed here`;
      throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: filename });
    }
    refuseReadOnly(device);
    if (isNamedRaw) await refuseLikeness(device);
    const size = sizeOf(wanted, device);
    const lostData = await lossOf(device, size, options);
    const how = { preallocation: preallocation satisfies RawPreallocation, signal };
    if (size < device.size) resizeRawFile(filename, size);
    else if (size > device.size) await growRawFile(filename, device.size, size, how);
    await device.flush();
    return { before: device.size, size, lostData };
  };
  return closeAfter(resize, () => device.close());
}

/** What says that it is not written is not resized either. */
function refuseReadOnly({ name, capabilities }: BlockDevice): void {
  if (capabilities.write) return;
  throw new TypeError(`${name} is described as read-only, and is not resized: leave that out`);
}

/** An image that is cut, or gets bytes behind it, is broken; and a name is not enough to do that. */
async function refuseLikeness(device: BlockDevice): Promise<void> {
  const [warning] = await warnOfSignature(device);
  if (warning === undefined) return;
  throw new LacunaError('ERR_DEVICE_FORMAT', warning, { device: device.name });
}

function sizeOf(wanted: number | { readonly by: number }, { name, size }: BlockDevice): number {
  const bytes = typeof wanted === 'number' ? wanted : size + wanted.by;
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  if (typeof wanted !== 'number' && bytes <= 0) {
    throw new RangeError(`${name} has ${size} bytes: nothing of it would be left`);
  }
  throw new RangeError(
    `a size must be a whole number of bytes above 0, at most ${SIZE_LIMIT}, not ${bytes}`,
  );
}

/** Bytes of data that are lost; refuses that where it is not allowed. */
async function lossOf(
  device: BlockDevice,
  size: number,
  { shrink = false, preallocation = 'off', signal }: ResizeOptions,
): Promise<number> {
  if (size >= device.size) return 0;
  if (preallocation !== 'off') {
    throw new TypeError('preallocation is for what is added: leave it out where a disk shrinks');
  }
  const data = await dataBehind(device, size, signal);
  if (shrink) return data;
  const bytes = counted(device.size - size, 'byte');
  throw new RangeError(
    `${device.name} would lose the last ${bytes} of its disk, ${data} of them data: say that it may shrink (--shrink)`,
  );
}

/** Bytes from one on that do not read as zero, as the device knows. */
async function dataBehind(
  device: BlockDevice,
  start: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  if (!device.capabilities.contexts.includes(Context.allocation)) return device.size - start;
  let data = 0;
  for (let at = start; at < device.size; ) {
    const contexts = [Context.allocation];
    const [list] = await device.someExtents(at, device.size - at, { contexts, signal });
    for (const { length, flags } of list) if (!readsAsZero(flags)) data += length;
    at = list.end;
  }
  return data;
}
