/** The images on the destination, while they are written here. */
import { dirname, resolve } from 'node:path';
import {
  type BlockDevice,
  type DeviceDescription,
  filesBelow,
  openBitmaps,
  openDevice,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { type PointBelow, pointBelow } from '../../repository/index.js';
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
 * @throws LacunaError ERR_BITMAP_MISMATCH where the bitmap counts from a later restore point; what opening throws.
 */
export async function openTarget(
  planned: PlannedMigration,
  signal: AbortSignal,
): Promise<OpenTarget> {
  const { target, format, carriesBitmap } = planned;
  const path = resolve(target);
  if (format !== 'qcow2') {
    const device = await openDevice({ driver: 'file', filename: path }, { writable: true, signal });
    return { planned, device };
  }
  const file = { driver: 'file', filename: path } as const;
  const below = await filesUnder(path);
  holdPoint(planned, below, path);
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

/** The point on top has those below it. */
function holdPoint(
  { bitmap, name }: PlannedMigration,
  below: readonly string[],
  overlay: string,
): void {
  const point = topPoint(below);
  if (point === undefined) return;
  const from = point.countedFrom(bitmap);
  if (from !== undefined && from > point.number) {
    throw new LacunaError(
      'ERR_BITMAP_MISMATCH',
      `${overlay} lies over restore point ${point.number} of ${point.machine}, and the bitmap ${JSON.stringify(bitmap)} of ${name} counts from ${from}: what was written in between would be missing. Make the image over point ${from}`,
      { device: overlay },
    );
  }
  point.hold(overlay);
}

function topPoint(images: readonly string[]): PointBelow | undefined {
  for (const image of images) {
    const point = pointBelow(image);
    // What lies below it is its own affair, images of points that are gone as well.
    if (point !== undefined) return point;
  }
  return undefined;
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
