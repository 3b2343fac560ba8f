import {
  type BlockDevice,
  type CommonDescription,
  type DeviceDescription,
  description,
  type Opening,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';

/** A filter over a disk that also writes a target. */
interface OverBoth extends CommonDescription {
  file: DeviceDescription | string;
  target: DeviceDescription | string;
}

/** A disk, and the target that a filter over it writes. */
export interface DiskAndTarget {
  readonly disk: BlockDevice;
  readonly target: BlockDevice;
}

/** How both are read in a description. */
export const DISK_AND_TARGET = {
  file: { read: description, required: true },
  target: { read: description, required: true },
} as const;

/**
 * Opens both.
 *
 * @param what says what of the disk must fit into the target
 * @throws LacunaError ERR_GRAPH_CONFLICT where the target is smaller than the disk; what opening throws.
 */
export async function openBoth(
  wanted: OverBoth,
  opening: Opening,
  what: string,
): Promise<DiskAndTarget> {
  const open = (key: 'file' | 'target', role: 'watched disk' | 'target', readOnly: boolean) =>
    opening.open(
      { ...(wanted[key] as DeviceDescription), 'read-only': readOnly },
      { ...opening, as: { key, role } },
    );
  const disk = await open('file', 'watched disk', wanted['read-only'] === true);
  const target = await open('target', 'target', false);
  if (target.size >= disk.size) return { disk, target };
  const message = `${what} ${disk.name} needs ${disk.size} bytes, and ${target.name} has ${target.size}: take a larger target`;
  throw new LacunaError('ERR_GRAPH_CONFLICT', message, { device: target.name });
}
