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
import { isOfBackup } from '../state/index.js';
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
 * @throws LacunaError ERR_BITMAP_MISMATCH where the bitmap counts from a later restore point, or from none of that disk; what
 *   opening throws.
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
  const below = await filesUnder(path);
  holdPoint(planned, { below, disks, overlay: path });
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

interface Overlay {
  /** The files below it. */
  readonly below: readonly string[];
  readonly disks: readonly string[];
  readonly overlay: string;
}

/** The point on top has those below it. */
function holdPoint(planned: PlannedMigration, { below, disks, overlay }: Overlay): void {
  const point = topPoint(below);
  if (point === undefined) return;
  const why = whyWrong(point, planned, disks);
  if (why !== undefined) {
    const { number, disk, machine } = point;
    throw new LacunaError(
      'ERR_BITMAP_MISMATCH',
      `${overlay} lies over restore point ${number} of ${machine} (its disk ${disk}), and ${why}`,
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

/** Why a disk cannot move to what lies over a point; undefined where nothing is known against it. */
function whyWrong(
  point: PointBelow,
  { bitmap, name }: PlannedMigration,
  disks: readonly string[],
): string | undefined {
  const from = point.countedFrom(bitmap);
  const what = `the bitmap ${JSON.stringify(bitmap)} of ${name}`;
  if (from === undefined) {
    if (isOfBackup(bitmap)) {
      return `${what} counts from a backup that its repository does not have, or no longer has: nothing says what was written in between. Make the image over the point that the bitmap counts from, or back the machine up there, and begin from that backup`;
    }
    // Names of disks may be others in a repository, but not those of one another.
    if (point.disk === name || !disks.includes(point.disk)) return;
    return `${name} is another disk of this machine. Make the image over the disk ${name} of that point`;
  }
  const { machine, number, disk } = from;
  if (machine !== point.machine || disk !== point.disk) {
    return `${what} counts from point ${number} of ${machine}, disk ${disk}: that is another disk. Make the image over that point`;
  }
  if (number <= point.number) return;
  return `${what} counts from ${number}: what was written in between would be missing. Make the image over point ${number}`;
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
