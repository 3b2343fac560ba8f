/** `--force-in-use`: block devices are written although they are mounted, or in use by the system. */
import { statSync } from 'node:fs';
import { type DeviceDescription, type ImageFormat, parseDescription } from '../../block/index.js';

export const FORCE_FLAG = '--force-in-use';
export const FORCE_TEXT = 'write a block device although it is mounted or in use by the system';

/** A device whose block devices are opened without asking who uses them; the locks of files are respected as ever. */
export function insistingOn(
  device: string | DeviceDescription,
  format: ImageFormat | undefined,
): DeviceDescription {
  const description = typeof device === 'string' ? parseDescription(device, { format }) : device;
  if (description.driver === 'file') {
    const isBlock = statSync(description.filename, { throwIfNoEntry: false })?.isBlockDevice();
    return isBlock ? { ...description, locking: 'off' } : description;
  }
  if (description.driver !== 'qcow2') return description;
  const { file, 'data-file': dataFile } = description;
  return {
    ...description,
    file: insistingOn(file, undefined),
    ...(dataFile && { 'data-file': insistingOn(dataFile, undefined) }),
  };
}
