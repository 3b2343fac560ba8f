import { dirname } from 'node:path';
import {
  type BackingName,
  type BlockDevice,
  checkBacking,
  type DeviceDescription,
  dataFileOf,
  fileOf,
  filesBelow,
  filesOf,
  type ImageFormat,
  imageOf,
  openDevice,
  openUnrecorded,
  parseDescription,
  pathOfNamed,
  type Qcow2Description,
  setBackingName,
} from '../block/index.js';
import { LacunaError } from '../errors/index.js';
import { samePlaceAmong } from '../files/index.js';
import { JOB_OPTIONS, Job, type JobControl, type JobOptions } from '../job/index.js';
import { closeAfter, optionCheck } from '../util/index.js';
import { differences } from './differences.js';
import {
  refuseSnapshot,
  refuseToChangeSnapshots,
  refuseToUncoverSnapshots,
} from './kept-snapshots.js';

/** Which image gets which backing file. Where it is ended early, the image keeps its old one. */
export interface RebaseOptions extends JobOptions {
  /** The image whose backing file changes: a qcow2 file. Nobody else may use it meanwhile. */
  image: string | DeviceDescription;
  /** The format of `image`, which must be qcow2; to be said where the name does not end so. */
  format?: ImageFormat | undefined;
  /** The new backing file, named as it shall stand in the image (relative to its folder), or null for none. */
  backing: BackingName | null;
  /** Only change the name: the caller knows that the new backing file shows the same as the old one. */
  unsafe?: boolean | undefined;
  /**
   * With `unsafe`: the new backing file shows the same to the internal snapshots of the image as well. Default false: an
   * image with snapshots that show anything of what lies below is refused.
   */
  snapshotsToo?: boolean | undefined;
}

const checkAllOfRebase = optionCheck<RebaseOptions>({
  ...JOB_OPTIONS,
  image: { needed: 'the path or the description of a qcow2 file' },
  backing: { needed: 'its filename and format, or null for none' },
  format: 'any',
  unsafe: 'flag',
  snapshotsToo: 'flag',
});

function checkRebaseOptions(owner: string, options: RebaseOptions): void {
  checkAllOfRebase(owner, options);
  const { backing } = options;
  if (backing !== null) checkBacking(`${owner}: backing`, backing);
}

/** The report of a rebase. */
export interface RebaseReport {
  /** Bytes that the image did not hold before, because its old backing file showed them. */
  writtenBytes: number;
}

/**
 * Gives an image another backing file. What the disk shows stays the same: where the new backing file differs from the
 * old one, what the old one showed is written into the image first. So its bitmaps stay as they are, too.
 *
 * Its internal snapshots cannot be written, so what they show must stay the same over the new backing file: it is refused
 * where they would show something else.
 *
 * It can be repeated after a failure or a crash. `doneBytes` of its progress are bytes of the disk that are as the new
 * backing file needs them.
 *
 * @throws TypeError for options that contradict each other. Everything else rejects the job: LacunaError ERR_DEVICE_FORMAT, ERR_DEVICE_LOCKED,
 * ERR_IMAGE_CHAIN where a snapshot would change, or the chain would go in a circle, ERR_QCOW2_UNSUPPORTED where the name
 * does not fit, ERR_DEVICE_UNSUPPORTED for an image that is opened at a snapshot, and what opening, reading and writing
 * throw.
 */
export function rebase(options: RebaseOptions): Job<RebaseReport> {
  checkRebaseOptions('rebase', options);
  const { unsafe = false, snapshotsToo = false, rate, signal } = options;
  if (snapshotsToo && !unsafe) {
    throw new TypeError('snapshotsToo is for unsafe: without it, snapshots are looked at anyway');
  }
  let progress = { totalBytes: 0, doneBytes: 0 };
  const told = (doneBytes: number, totalBytes: number) => {
    progress = { totalBytes, doneBytes };
  };
  return new Job<RebaseReport>({
    what: 'a rebase',
    rate,
    signal,
    work: (job) => rebaseImage(options, job, told),
    counted: () => progress,
  });
}

/** Told how much of the disk has been gone through. */
type Told = (doneBytes: number, totalBytes: number) => void;

async function rebaseImage(
  { image, format, backing, unsafe = false, snapshotsToo = false }: RebaseOptions,
  job: JobControl,
  told: Told,
): Promise<RebaseReport> {
  const description = typeof image === 'string' ? parseDescription(image, { format }) : image;
  const own = imageOf(description);
  if (own === undefined || fileOf(own.file) === undefined) {
    const name = typeof image === 'string' ? image : JSON.stringify(image);
    const message = `${name} is no qcow2 file, and only those have backing files; if it is one, say so (-f qcow2)`;
    throw new LacunaError('ERR_DEVICE_FORMAT', message);
  }
  refuseSnapshot(own, 'a snapshot has the backing file of its image');
  if (backing !== null) await refuseCircle(own, backing);
  if (unsafe && !snapshotsToo) await refuseToUncoverSnapshots(own, job.signal);
  const writtenBytes = unsafe ? 0 : await keepContent(own, backing, job, told);
  // The last moment to keep the old one.
  await job.next();
  await setBackingName(own, backing);
  return { writtenBytes };
}

async function keepContent(
  description: Qcow2Description,
  backing: BackingName | null,
  job: JobControl,
  told: Told,
): Promise<number> {
  const below = backing === null ? undefined : await openBacking(description, backing, job.ending);
  return await closeAfter(
    async () => {
      await refuseToChangeSnapshots(description, below, { job });
      const device = await openUnrecorded(description);
      return await closeAfter(
        async () => {
          const written = await writeDifferences(device, below, job, told);
          await device.flush();
          return written;
        },
        () => device.close(),
      );
    },
    async () => below?.close(),
  );
}

/** An image cannot be below itself: nobody could open it any more. */
async function refuseCircle({ file }: Qcow2Description, backing: BackingName): Promise<void> {
  const [image] = filesOf(file);
  const below = filesBelow(image, backing);
  const dataFile = dataFileOf(image);
  for (const own of [image, ...(dataFile === undefined ? [] : [dataFile])]) {
    if (samePlaceAmong(own, below) === undefined) continue;
    const message = `${own} would be its own backing file, at once or some way down: name an image that is not made of it`;
    throw new LacunaError('ERR_IMAGE_CHAIN', message, { device: own });
  }
}

/** A relative name counts from the folder of the image. */
function pathOf({ file }: Qcow2Description, { filename }: BackingName): string {
  const [image] = filesOf(file);
  return pathOfNamed(filename, image);
}

function openBacking(
  image: Qcow2Description,
  backing: BackingName,
  signal?: AbortSignal,
): Promise<BlockDevice> {
  const { filename, format } = backing;
  const { 'backing-folders': folders } = image;
  const path = { driver: 'file', filename: pathOf(image, backing) } as const;
  const described: Record<string, DeviceDescription> = {
    raw: path,
    qcow2: {
      driver: 'qcow2',
      file: path,
      // What is below the new backing file may lie where the image's own files may.
      ...(folders && { 'backing-folders': [dirname(path.filename), ...folders] }),
    },
  };
  const description = described[format];
  if (description !== undefined) return openDevice(description, { signal });
  const message = `${filename}: images of the format ${format} cannot be read here; if it shows the same as the old backing file, say so (--unsafe)`;
  throw new LacunaError('ERR_DEVICE_FORMAT', message, { device: filename });
}

/**
 * Writes what the image shows and does not hold, where the device that will be below it shows something else.
 *
 * @returns how many bytes that were.
 */
export async function writeDifferences(
  image: BlockDevice,
  below: BlockDevice | undefined,
  job: Pick<JobControl, 'next' | 'signal'>,
  told: Told,
): Promise<number> {
  const totalBytes = image.size;
  const tell = (doneBytes: number) => told(doneBytes, totalBytes);
  let written = 0;
  for await (const { offset, bytes } of differences(image, below, { job, told: tell })) {
    await image.write(offset, bytes);
    written += bytes.length;
  }
  tell(totalBytes);
  return written;
}
