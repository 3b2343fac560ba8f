/** Images that lie over a restore point of a repository, while a running machine is copied into them. */
import { LacunaError } from '../../errors/index.js';
import { type PointBelow, pointBelow } from '../../repository/index.js';
import { isOfBackup } from '../state/index.js';

/** An image, and the files below it. */
export interface ImageOver {
  readonly path: string;
  readonly below: readonly string[];
}

/** What is copied into an image. */
export interface CopiedInto {
  /** The bitmap that says what the image may lack; undefined where all of the disk is copied, or it counts from no backup. */
  readonly bitmap?: string | undefined;
  /** The name of the disk. */
  readonly disk: string;
  /** The names of all disks of the machine that are copied. */
  readonly disks: readonly string[];
}

/**
 * Refuses an image that is one of a repository: writing to it would destroy its point, and all above it.
 *
 * @throws LacunaError ERR_COPY_MISMATCH; what `pointBelow` throws.
 */
export function refuseImageOfPoint(path: string): void {
  const point = pointBelow(path);
  if (point === undefined) return;
  const { number, machine } = point;
  throw new LacunaError(
    'ERR_COPY_MISMATCH',
    `${path} is an image of restore point ${number} of ${machine}, which would be destroyed: make an image over it, and name that`,
    { device: path },
  );
}

/**
 * Keeps `prune` from the restore point below an image, if there is one; it has those below it.
 *
 * @throws LacunaError ERR_BITMAP_MISMATCH where the bitmap counts from a later point, or from none of that disk; what
 *   `pointBelow` throws.
 */
export function holdPoint({ path, below }: ImageOver, copied: CopiedInto): void {
  const point = topPoint(below);
  if (point === undefined) return;
  const why = whyWrong(point, copied);
  if (why !== undefined) {
    const { number, disk, machine } = point;
    throw new LacunaError(
      'ERR_BITMAP_MISMATCH',
      `${path} lies over restore point ${number} of ${machine} (its disk ${disk}), and ${why}`,
      { device: path },
    );
  }
  point.hold(path);
}

function topPoint(images: readonly string[]): PointBelow | undefined {
  for (const image of images) {
    const point = pointBelow(image);
    // What lies below it is its own affair, images of points that are gone as well.
    if (point !== undefined) return point;
  }
  return undefined;
}

/** Why a disk cannot be copied into what lies over a point; undefined where nothing is known against it. */
function whyWrong(
  point: PointBelow,
  { bitmap, disk: name, disks }: CopiedInto,
): string | undefined {
  if (bitmap === undefined) return undefined;
  const from = point.countedFrom(bitmap);
  const what = `the bitmap ${JSON.stringify(bitmap)} of ${name}`;
  if (from === undefined) {
    if (isOfBackup(bitmap)) {
      return `${what} counts from a backup that its repository does not have, or no longer has: nothing says what was written in between. Make the image over the point that the bitmap counts from, or back the machine up there, and begin from that backup`;
    }
    // Names of disks may be others in a repository, but not those of one another.
    if (point.disk === name || !disks.includes(point.disk)) return undefined;
    return `${name} is another disk of this machine. Make the image over the disk ${name} of that point`;
  }
  const { machine, number, disk } = from;
  if (machine !== point.machine || disk !== point.disk) {
    return `${what} counts from point ${number} of ${machine}, disk ${disk}: that is another disk. Make the image over that point`;
  }
  if (number <= point.number) return undefined;
  return `${what} counts from ${number}: what was written in between would be missing. Make the image over point ${number}`;
}
