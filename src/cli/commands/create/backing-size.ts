import { dirname } from 'node:path';
import {
  type BackingName,
  type DeviceDescription,
  openDevice,
  pathOfNamed,
} from '../../../block/index.js';

/** QEMU takes what stands before a colon for a protocol, unless a slash comes first. */
const PROTOCOL = /^[^/]*:/;

export interface BackingSizeOptions {
  /** Folders into which the backing file's own files are followed, beside its own. */
  readonly folders: readonly string[] | undefined;
  readonly signal: AbortSignal;
}

/**
 * Bytes of the disk that a backing file shows, which is opened with all that lies below it.
 *
 * @param image the new image, from whose folder a relative name counts.
 * @throws TypeError where it cannot be opened here; what opening throws.
 */
export async function sizeOfBacking(
  image: string,
  { filename, format }: BackingName,
  { folders = [], signal }: BackingSizeOptions,
): Promise<number> {
  if (PROTOCOL.test(filename) || (format !== 'raw' && format !== 'qcow2')) {
    throw new TypeError(
      `${filename} (${format}) cannot be looked at here, only raw and qcow2 files can: say the size, and --unsafe`,
    );
  }
  const path = pathOfNamed(filename, image);
  const file = { driver: 'file', filename: path } as const;
  const description: DeviceDescription =
    format === 'raw'
      ? file
      : { driver: 'qcow2', file, 'backing-folders': [dirname(path), ...folders] };
  // Machines may have it open: a base is shared by many, and only its size is asked for.
  const device = await openDevice(description, { signal, forceShare: true });
  try {
    return device.size;
  } finally {
    await device.close();
  }
}
