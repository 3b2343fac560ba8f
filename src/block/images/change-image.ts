/** What is changed in an image as a whole, rather than in the disk that it shows. */
import { checkGiven, closeAfter } from '../../util/index.js';
import {
  A_SOURCE,
  type BlockDevice,
  Device,
  type DeviceDescription,
  type Opening,
} from '../contract/index.js';
import { checkDescription, imageOf, parseDescription } from '../describe/index.js';
import type { Qcow2Description } from '../drivers/qcow2/index.js';
import type { BackingName } from '../drivers/qcow2/io/index.js';
import type { Qcow2Driver } from '../drivers/qcow2/open/index.js';
import { describeOpened, openBelow } from '../open/index.js';

/**
 * Makes the disk of a qcow2 image larger; what is added reads as zero. Nobody else may have it open.
 *
 * @throws TypeError if this is no qcow2 image; RangeError if the disk would become smaller or too large; what
 * `openDevice` throws.
 */
export async function resizeQcow2(source: string | DeviceDescription, size: number): Promise<void> {
  checkGiven('resizeQcow2', 'source', source, A_SOURCE);
  checkGiven('resizeQcow2', 'size', size, 'bytes of the disk from now on');
  const given = typeof source === 'string' ? parseDescription(source, {}) : source;
  const description = describeOpened(checkDescription(given), { writable: true });
  const image = imageOf(description);
  if (image === undefined) {
    throw new TypeError(`driver ${description.driver}: only qcow2 images are resized`);
  }
  const driver = await openImage({ ...image, 'read-only': description['read-only'] });
  await closeAfter(
    () => driver.grow(size),
    () => driver.close(),
  );
}

/** Opens a qcow2 image to write what its disk shows already, which its bitmaps need not record. */
export async function openUnrecorded(source: Qcow2Description): Promise<BlockDevice> {
  const description = { ...source, 'read-only': false };
  return new Device(await openImage(description, { unrecorded: true }));
}

/** Changes the name of the backing file in a qcow2 image, and nothing else; see `setBackingFile`. */
export async function setBackingName(
  { file }: Qcow2Description,
  backing: BackingName | null,
): Promise<void> {
  await using opened = await openBelow(
    { ...file, 'read-only': false },
    { open: openBelow, above: [], grows: true },
  );
  const { setBackingFile } = await import('../drivers/qcow2/open/set-backing.js');
  await setBackingFile(opened, backing);
}

/** Loaded when it is needed, as most devices are not images. */
export async function openImage(
  description: Qcow2Description,
  opening: Partial<Opening> = {},
): Promise<Qcow2Driver> {
  const { Qcow2Driver } = await import('../drivers/qcow2/open/index.js');
  return Qcow2Driver.open(description, { open: openBelow, above: [], ...opening });
}
