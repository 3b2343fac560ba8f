/** The images on the destination, while they are written here. */
import { dirname, resolve } from 'node:path';
import {
  type BlockDevice,
  type DeviceDescription,
  filesBelow,
  openBitmaps,
  openDevice,
} from '../../block/index.js';
import { holdPoint, refuseImageOfPoint } from '../session/index.js';
import type { PlannedMigration } from './plan-migrate.js';

/** An image that is open for writing. */
export interface OpenTarget {
  readonly planned: PlannedMigration;
  readonly device: BlockDevice;
}

/**
 * Opens an image. A bitmap in it, of the name that the disk's has, records all that is written here, and goes on where the
 * machine runs next: so it marks what the image holds otherwise than the restore point below it.
 *
 * A restore point below it is held from now on: `prune` leaves it alone while the image is there.
 *
 * @param disks the names of all disks that move
 * @throws LacunaError ERR_BITMAP_MISMATCH where the bitmap counts from a later restore point, or from none of that disk;
 *   ERR_COPY_MISMATCH for an image of a restore point; what opening throws.
 */
export async function openTarget(
  planned: PlannedMigration,
  disks: readonly string[],
  signal: AbortSignal,
): Promise<OpenTarget> {
  const { target, format, carriesBitmap } = planned;
  const path = resolve(target);
  if (format !== 'qcow2') {
    const device = await openDevice({ driver: 'file', filename: path }, { writable: true, signal });
    return { planned, device };
  }
  const file = { driver: 'file', filename: path } as const;
  refuseImageOfPoint(path);
  const below = await filesUnder(path);
  holdPoint({ path, below }, { bitmap: planned.bitmap, disk: planned.name, disks });
  if (carriesBitmap) await addBitmap({ driver: 'qcow2', file }, planned);
  // The destination has opened all of them already, as its command line says.
  const folders = [path, ...below].map((name) => dirname(name));
  const device = await openDevice(
    { driver: 'qcow2', file, 'backing-folders': [...new Set(folders)] },
    { writable: true, signal },
  );
  return { planned, device };
}

/** Files of the chain below an image. */
async function filesUnder(path: string): Promise<string[]> {
  const file = { driver: 'file', filename: path } as const;
  await using image = await openDevice({ driver: 'qcow2', file, backing: null });
  const { backingFile: filename, backingFormat: format = 'qcow2' } = image.details ?? {};
  return filename === undefined ? [] : filesBelow(path, { filename, format });
}

/** What an earlier attempt has recorded is recorded again: everything is copied anew from the disk's own bitmap. */
async function addBitmap(
  image: DeviceDescription,
  { bitmap: name, granularity }: PlannedMigration,
): Promise<void> {
  await using opened = await openBitmaps(image, { writable: true });
  if (opened.bitmaps.has(name)) opened.bitmaps.remove(name);
  opened.bitmaps.add({ name, granularity, persistent: true });
  await opened.store();
}

/** Makes everything durable, and closes: the destination may take them over. */
export async function closeTargets(targets: readonly OpenTarget[]): Promise<void> {
  const ends = await Promise.allSettled(targets.map(({ device }) => device.close()));
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
}
