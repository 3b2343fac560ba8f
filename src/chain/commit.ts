import {
  changeOwn,
  changeUnfiltered,
  type DeviceDescription,
  type FileDescription,
  fileOf,
  guardImage,
  type ImageFormat,
  imageOf,
  openBitmaps,
  openDevice,
  type Qcow2Description,
  resizeQcow2,
  resizeRawFile,
  takesKey,
} from '../block/index.js';
import { carryBitmap, statIfThere } from '../copy/ends/index.js';
import { type CopyJob, type CopyReport, copy } from '../copy/index.js';
import { LacunaError } from '../errors/index.js';
import { JOB_OPTIONS, Job, type JobControl, type JobOptions } from '../job/index.js';
import { closeAfter, optionCheck } from '../util/index.js';
import { refuseSnapshot, refuseToChangeSnapshots } from './kept-snapshots.js';

/** What `commit` works on. One that was ended early goes on when it is run again. */
export interface CommitOptions extends JobOptions {
  /** The image on top: a qcow2 file with a backing file. Nobody else may use it meanwhile. */
  top: string | DeviceDescription;
  /** The format inside a path. Default: from the path's ending. */
  format?: ImageFormat | undefined;
}

const checkCommitOptions = optionCheck<CommitOptions>({
  ...JOB_OPTIONS,
  top: { needed: 'the path or the description of a qcow2 file' },
  format: 'any',
});

/** The report of a commit: that of its copy, and where everything is now. */
export interface CommitReport extends CopyReport {
  /** The image that holds everything now, as a person would name it. */
  base: string;
  /** Bitmaps that the base keeps now as the top does. */
  bitmaps: string[];
}

/** An image of two layers, by what opens its files without taking locks twice. */
interface Layers {
  readonly file: FileDescription;
  /** As it was named, filters and all. */
  readonly top: DeviceDescription;
  readonly image: Qcow2Description;
  readonly base: DeviceDescription;
  readonly size: number;
}

/**
 * Puts what the top image holds into its backing file, which is the same disk then, and can be used in its place. The
 * top is left as it is, and shows the same as before; other images over the same backing file do not. A backing file that
 * is smaller grows; one that is larger keeps its size, and what it has behind the end of the top.
 *
 * A bitmap of the base that records notes what is put into it. One of the top is carried along: its dirt is added to
 * the base's bitmap of that name, or the base gets one like it, which begins when the data is there, since what the
 * top held before it began is nothing new to it.
 *
 * Internal snapshots of the top that show something of the backing file must stay the same: it is refused where what is
 * put there would change them. Those of the backing file keep what they have.
 *
 * It can be repeated after a failure or a crash: the top still has everything. `doneBytes` of its progress are those of
 * its copy.
 *
 * @throws TypeError for options that make no sense. Everything else rejects the job: LacunaError ERR_IMAGE_CHAIN where there is no backing file, or a snapshot of the top would change,
 * ERR_DEVICE_LOCKED where somebody uses one of the two, ERR_DEVICE_UNSUPPORTED for a top that is opened at a snapshot, and
 * what `copy` throws.
 */
export function commit(options: CommitOptions): Job<CommitReport> {
  checkCommitOptions('commit', options);
  const { rate, signal } = options;
  let copying: CopyJob | undefined;
  return new Job<CommitReport>({
    what: 'a commit',
    rate,
    signal,
    work: (job) =>
      commitImage(options, job, (begun) => {
        copying = begun;
      }),
    counted: () => {
      const { totalBytes = 0, doneBytes = 0 } = copying?.progress() ?? {};
      return { totalBytes, doneBytes };
    },
  });
}

async function commitImage(
  options: CommitOptions,
  job: JobControl,
  begun: (copying: CopyJob) => void,
): Promise<CommitReport> {
  const layers = await layersOf(options, job.ending);
  const unguard = await guardImage(layers.file.filename);
  try {
    await keepSnapshots(layers, job);
    await growBase(layers);
    const { report, base } = await move(layers, job, begun);
    const { bitmaps, warnings } = await carryBitmaps(layers);
    return { ...report, base, bitmaps, warnings: [...report.warnings, ...warnings] };
  } finally {
    unguard();
  }
}

async function layersOf({ top, format }: CommitOptions, signal: AbortSignal): Promise<Layers> {
  const device = await openDevice(top, { format, signal });
  const { description, size, name } = device;
  await device.close();
  const image = imageOf(description);
  const file = fileOf(image?.file);
  if (description === undefined || image === undefined || file === undefined) {
    throw chainError(
      name,
      'is no qcow2 file, and only those are put into a backing file; if it is one, say so (-f qcow2)',
    );
  }
  refuseSnapshot(
    image,
    'only the disk as it is now, with its bitmaps, is put into the backing file',
  );
  const { backing } = image;
  if (backing === null || backing === undefined) {
    throw chainError(
      name,
      'has no backing file that it could be put into: give it one with "lacuna rebase", or copy it to a file of its own',
    );
  }
  return { file, top: description, image, base: writable(backing), size };
}

/** A description that was told by an opening for reading, for one that writes and takes locks of its own. */
function writable(description: DeviceDescription): DeviceDescription {
  return changeOwn(description, (part) => {
    const given = { ...part, 'read-only': false };
    return takesKey(given, 'locking') ? { ...given, locking: 'auto' } : given;
  });
}

/** What the top holds is what the backing file will show. */
async function keepSnapshots({ image }: Layers, job: JobControl): Promise<void> {
  await using shown = await openDevice(image, { signal: job.ending });
  if ((shown.details?.snapshots.length ?? 0) === 0) return;
  await refuseToChangeSnapshots(image, shown, { job, topOnly: true });
}

async function growBase({ base, size }: Layers): Promise<void> {
  const device = await openDevice(base);
  const { size: now, name } = device;
  await device.close();
  if (now >= size) return;
  const file = fileOf(base);
  if (imageOf(base) !== undefined) await resizeQcow2(base, size);
  else if (file !== undefined && (await statIfThere(file.filename))?.isFile())
    resizeRawFile(file.filename, size);
  else {
    const message = `${name} has ${now} bytes, and the image on top ${size}: make it larger first, since that cannot be done here`;
    throw new LacunaError('ERR_COPY_MISMATCH', message, { device: name });
  }
}

async function move(
  { top, base }: Layers,
  job: JobControl,
  begun: (copying: CopyJob) => void,
): Promise<{ report: CopyReport; base: string }> {
  await job.next();
  const target = await openDevice(base, { writable: true, signal: job.ending });
  return await closeAfter(
    async () => {
      // Over the base as it is open here, whose locks stand for both.
      const over = changeUnfiltered(top, (own) =>
        takesKey(own, 'backing') ? { ...own, backing: target.description } : own,
      );
      const source = await openDevice(over, { signal: job.ending });
      return await closeAfter(
        async () => {
          const copying = copy({ source, target, mode: 'top', signal: job.signal });
          begun(copying);
          const report = await job.run(copying);
          return { report, base: target.name };
        },
        () => source.close(),
      );
    },
    () => target.close(),
  );
}

async function carryBitmaps({ top, base }: Layers) {
  const carried: string[] = [];
  const warnings: string[] = [];
  await using from = await openBitmaps(top);
  const infos = from.bitmaps.list();
  if (infos.length === 0) return { bitmaps: carried, warnings };
  if (imageOf(base) === undefined) {
    warnings.push(`The bitmaps of ${from.name} stay there: its backing file cannot keep any`);
    return { bitmaps: carried, warnings };
  }
  await using to = await openBitmaps(base, { writable: true });
  for (const info of infos) {
    const why = await carryBitmap(info, from, to);
    if (why === undefined) carried.push(info.name);
    else warnings.push(`Bitmap '${info.name}' of ${from.name} stays there: ${why}`);
  }
  try {
    await to.store();
  } catch (error) {
    // The disk is whole without them, and the top still has them.
    if (!(error instanceof LacunaError) || error.code !== 'ERR_QCOW2_UNSUPPORTED') throw error;
    warnings.push(`The bitmaps of ${from.name} stay there: ${error.message}`);
    return { bitmaps: [], warnings };
  }
  return { bitmaps: carried, warnings };
}

function chainError(name: string, what: string): LacunaError {
  return new LacunaError('ERR_IMAGE_CHAIN', `${name} ${what}`, { device: name });
}
