/** `--force-in-use`: block devices are written although they are mounted, or in use by the system. */
import { statSync } from 'node:fs';
import {
  changeOwn,
  type DeviceDescription,
  type ImageFormat,
  parseDescription,
  plainFile,
} from '../../block/index.js';

export const FORCE_FLAG = '--force-in-use';
export const FORCE_TEXT = 'write a block device although it is mounted or in use by the system';

/** A device whose block devices are opened without asking who uses them; the locks of files are respected as ever. */
export function insistingOn(
  device: string | DeviceDescription,
  format: ImageFormat | undefined,
): DeviceDescription {
  const description = typeof device === 'string' ? parseDescription(device, { format }) : device;
  return changeOwn(description, (part) => {
    const file = plainFile(part);
    if (file === undefined) return part;
    const isBlock = statSync(file.filename, { throwIfNoEntry: false })?.isBlockDevice();
    return isBlock ? { ...file, locking: 'off' } : file;
  });
}
