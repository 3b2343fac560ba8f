/** The file of an image alone, for what is done with the image rather than with the disk that it shows. */
import { LacunaError } from '../../errors/index.js';
import type { BlockDevice, DeviceDescription } from '../contract/index.js';
import {
  checkDescription,
  fileOf,
  type ImageFormat,
  imageOf,
  parseDescription,
} from '../describe/index.js';
import { type OpenOptions, openBelow, openDevice } from '../open/index.js';

/** What a message says of what is done with an image. */
interface ImageWords {
  /** Why a file of another format is refused: `nothing else can be checked`. */
  readonly other: string;
  /** What is done with the image as a whole: `checked`. */
  readonly whole: string;
}

/**
 * The description of the file of a qcow2 image that something is done with as a whole.
 *
 * @throws TypeError if the description is not valid; LacunaError ERR_DEVICE_FORMAT where it is no qcow2 image,
 * ERR_DEVICE_UNSUPPORTED where a snapshot is named.
 */
export function imageFileOf(
  source: string | DeviceDescription,
  format: ImageFormat | undefined,
  { other, whole }: ImageWords,
): DeviceDescription {
  const given = typeof source === 'string' ? parseDescription(source, { format }) : source;
  const image = imageOf(checkDescription(given));
  const name = typeof source === 'string' ? source : JSON.stringify(source);
  if (image === undefined) {
    const message = `${name} is no qcow2 image, and ${other}; if it is one, say so (-f qcow2)`;
    throw new LacunaError('ERR_DEVICE_FORMAT', message, { device: name });
  }
  const { snapshot, file } = image;
  if (snapshot === undefined) return file;
  const message = `${fileOf(file)?.filename ?? name} is ${whole} as a whole, with all of its snapshots: leave "snapshot" out`;
  throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: name });
}

/** Opens it. A file that is written grows; so it is opened behind what lets it. A block device has the size it has. */
export async function openImageFile(
  description: DeviceDescription,
  { writable, forceShare, signal }: Pick<OpenOptions, 'writable' | 'forceShare' | 'signal'>,
): Promise<BlockDevice> {
  if (!writable) return openDevice(description, { forceShare, signal });
  if (forceShare) throw new TypeError('force-share is for reading only');
  return openBelow(description, { open: openBelow, above: [], grows: true, signal });
}
