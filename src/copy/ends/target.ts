/** Opens the target of a copy, making it first where it is a file. */
import {
  type BlockDevice,
  changeHolder,
  type DeviceDescription,
  type FileDescription,
  fileOf,
  filesOf,
  imageOf,
  isBlockDevice,
  isRemote,
  openDevice,
  plainFile,
  type Qcow2Description,
  sharing,
  sizedFor,
  takesKey,
  warnOfSignature,
} from '../../block/index.js';
import { LacunaError, throwIfAborted } from '../../errors/index.js';
import { followed, samePlaceAmong, statIfThere } from '../../files/index.js';
import { counted } from '../../util/index.js';
import {
  type CopyOptions,
  isPartial,
  type PlanScope,
  reconnectSeconds,
  rulesOf,
} from '../options/index.js';
import { bitmapsToCarry } from './carry-bitmaps.js';
import { unfinishedWarning } from './clean.js';
import type { CopyState } from './copy-state.js';
import { refuseNothing } from './empty-source.js';
import { cutLater, fileToFit, openFitting } from './in-place-file.js';
import type { Increment } from './increment-layout.js';
import {
  asItIs,
  type Making,
  type NewFile,
  type NewImageChoices,
  newImage,
  newRawFile,
} from './new-file.js';
import type { Target } from './opened-target.js';
import { checkBinding, mismatch, targetBinding } from './resume-binding.js';
import { refuseLikeness, refuseSource } from './same-disk.js';
import { patient, reopened } from './source.js';
import { refuseBitmaps, refuseImage, refuseMaking, refuseSameFile } from './target-refusals.js';
import { syncName, UnfinishedFile } from './unfinished-file.js';

export type { Target } from './opened-target.js';

/** The part of a resumption that knows where targets are made. */
interface Planner {
  readonly saved: { readonly state: CopyState } | undefined;
  planTarget(filename: string): Promise<string>;
}

/**
 * A full copy to a file is made beside it (see unfinished-file.ts), and so is an image over a backing file; everything else,
 * and an incremental copy, is written in place. A copy that is resumed goes on with the target that its state names.
 */
export async function prepareTarget(
  options: Omit<CopyOptions, 'signal'>,
  source: BlockDevice,
  signal: AbortSignal,
  resumption?: Planner,
): Promise<Target> {
  const { target, targetIsZero: told = false } = options;
  // What the top layer holds is there for an image below it, which may be larger.
  const sameSize = isPartial(options) && options.mode !== 'top';
  throwIfAborted(signal);
  const description = describeTarget(options, source);
  const file = isBlockDevice(target) ? undefined : await fileToMake(description, options);
  refuseNothing(source, file, options);
  if (file === undefined) {
    await refuseSource(description, source);
    if (imageToMakeOn(description, options) === undefined) refuseMaking(options, description);
  } else {
    await refuseSameFile(description, options, source);
  }
  const bitmaps = await bitmapsToCarry(options, source, signal);
  if (isBlockDevice(target) && options.compress) {
    throw new TypeError('a device that is open compresses or does not: open it with "compress"');
  }
  if (isBlockDevice(target)) {
    await refuseLikeness(target, source);
    return inPlace(target, source, sameSize, told);
  }

  if (file !== undefined) {
    const making = { bitmaps, signal };
    const kind = newFile(description as DeviceDescription, file, source.size, options, making);
    return await makeWithBitmaps(kind, source, { ...options, signal }, resumption, bitmaps);
  }
  const image = imageToMakeOn(description, options);
  if (image !== undefined) {
    const { imageOnDevice } = await import('./device-image.js');
    return await imageOnDevice(description!, image, source, { ...options, signal });
  }
  const fitted = fileToFit(description as DeviceDescription, options);
  const how = { signal, resume: resumption?.saved && options.resume };
  const open = () =>
    fitted === undefined
      ? openDevice(description as DeviceDescription, { writable: true, signal })
      : openFitting(description as DeviceDescription, fitted, source, how);
  const device = await open().catch(async (error) => {
    if (isPartial(options)) refuseMissing(error);
    throw (await isBelow(description, source))
      ? belowSource(error)
      : toBeMadeOn(description, error);
  });
  try {
    // What it is made of is known now that it is open.
    await refuseSource(device.description, source);
    await refuseLikeness(device, source);
    const opened = inPlace(device, source, sameSize, told, open);
    // Dirty ranges of a disk would be written into the middle of an image.
    if (isPartial(options) && isNamedRaw(description, options)) {
      opened.warnings.push(...(await warnOfSignature(device)));
    }
    if (fitted !== undefined) cutLater(opened, fitted, source, options);
    return opened;
  } catch (error) {
    await device.close();
    throw error;
  }
}

async function makeWithBitmaps(
  kind: NewFile,
  source: BlockDevice,
  { resume, flush, signal }: HowWritten,
  resumption: Planner | undefined,
  bitmaps: Making['bitmaps'],
): Promise<Target> {
  const opened = await makeOrGoOn(kind, source, { resume, flush, signal }, resumption);
  if (bitmaps !== undefined) {
    opened.bitmaps = bitmaps.names;
    opened.warnings.push(...bitmaps.warnings);
  }
  return opened;
}

/** The new image that a full copy makes on a block device or an export; undefined where it writes into an existing image. */
function imageToMakeOn(
  description: DeviceDescription | undefined,
  options: PlanScope & Pick<CopyOptions, 'target' | 'inPlace'>,
): Qcow2Description | undefined {
  if (isBlockDevice(options.target) || isPartial(options) || options.inPlace) return undefined;
  const image = imageOf(description);
  if (image === undefined) return undefined;
  const path = fileOf(image.file)?.filename;
  const isBlock = path !== undefined && statIfThere(path)?.isBlockDevice() === true;
  return isBlock || isRemote(image.file) ? image : undefined;
}

/** Files are made as images; a device has to be one already. */
function toBeMadeOn(description: DeviceDescription | undefined, error: unknown): unknown {
  const filename = fileOf(imageOf(description)?.file)?.filename;
  if (filename === undefined) return error;
  const isNone = error instanceof LacunaError && error.offset === 0 && error.device === filename;
  if (!isNone || error.code !== 'ERR_QCOW2_CORRUPT' || !statIfThere(filename)?.isBlockDevice())
    return error;
  const message = `${filename} is a device without a qcow2 image, which is written into: make one there first, with a full copy that is not --in-place, or say that the target is raw (-f raw)`;
  return new LacunaError(error.code, message, { device: filename, offset: 0, cause: error });
}

/** The file that a copy makes or replaces; undefined where it writes into what is there. */
async function fileToMake(
  description: DeviceDescription | undefined,
  options: PlanScope & Pick<CopyOptions, 'image' | 'inPlace'>,
): Promise<FileDescription | undefined> {
  if (isPartial(options) && options.image?.backing === undefined) return undefined;
  const file = fileOf(imageOf(description)?.file ?? description);
  if (file === undefined || (options.inPlace && statIfThere(file.filename))) return undefined;
  return (await isFileToMake(file)) ? file : undefined;
}

function newFile(
  description: DeviceDescription,
  file: FileDescription,
  size: number,
  options: NewImageChoices,
  making: Making,
): NewFile {
  const image = imageOf(description);
  if (image !== undefined) return newImage(description, image, file, size, options, making);
  if (making.bitmaps !== undefined) refuseBitmaps(file.filename);
  if (options.image !== undefined) refuseImage(file.filename);
  return newRawFile(description, file, size, options, making.signal);
}

/** How the target is opened; undefined for a device of the caller's that cannot be opened again. */
export function describeTarget(
  options: Pick<
    CopyOptions,
    'target' | 'targetFormat' | 'compress' | 'onReadError' | 'onWriteError' | 'retry'
  >,
  source: BlockDevice,
): DeviceDescription | undefined {
  const { target } = options;
  if (isBlockDevice(target)) return target.description;
  const seconds = reconnectSeconds(rulesOf(options).target, options);
  const description = sharing(patient(target, options.targetFormat, seconds));
  return options.compress ? compressed(description) : sizedFor(description, source.size);
}

/** Whether nothing but its name says that the target is raw. */
function isNamedRaw(
  description: DeviceDescription | undefined,
  options: Pick<CopyOptions, 'target' | 'targetFormat'>,
): boolean {
  const { target, targetFormat } = options;
  return plainFile(description)?.filename === target && targetFormat === undefined;
}

function inPlace(
  device: BlockDevice,
  source: BlockDevice,
  sameSize: boolean,
  told: boolean,
  open?: () => Promise<BlockDevice>,
): Target {
  const opened: Target = {
    device,
    isZero: told || device.capabilities.knownZero,
    warnings: checkSize(device, source, sameSize),
    binding: targetBinding(device),
    anchor: async () => {},
    finish: async () => [],
    removeUnfinished: async () => {},
    keepUnfinished: async () => undefined,
    reopen: async () => {
      if (open) opened.device = await reopened(opened.device, open);
    },
    close: async () => (open ? opened.device.close() : undefined),
  };
  return opened;
}

function checkSize(device: BlockDevice, source: BlockDevice, sameSize: boolean): string[] {
  if (device.size === source.size || isRoundedUp(device, source)) return [];
  if (device.size > source.size && !sameSize) {
    const more = device.size - source.size;
    return [
      `${device.name} is ${counted(more, 'byte')} larger than ${source.name}; those were left as they were`,
    ];
  }
  const need = sameSize ? 'an incremental copy needs' : 'a copy needs at least';
  throw new LacunaError(
    'ERR_COPY_MISMATCH',
    `${device.name} has ${device.size} bytes and ${source.name} ${source.size}: ${need} a target of the same size`,
    { device: device.name },
  );
}

/** A qcow2 image of a disk ends at a multiple of 512; what that adds reads as zero. */
function isRoundedUp({ details, size }: BlockDevice, source: BlockDevice): boolean {
  return details?.format === 'qcow2' && size === Math.ceil(source.size / 512) * 512;
}

function compressed(description: DeviceDescription): DeviceDescription {
  return changeHolder(description, (own) => {
    if (takesKey(own, 'compress')) return { ...own, compress: true };
    throw new TypeError(`only qcow2 images are compressed, and the target is not one`);
  });
}

/** A regular file is made or replaced; a block device is written in place. */
export async function isFileToMake({ filename }: FileDescription): Promise<boolean> {
  const old = await statIfThere(filename);
  return old === undefined || old.isFile();
}

/** Whether a target is one of the files that the source has below its top layer. */
async function isBelow(target: DeviceDescription | undefined, { description }: BlockDevice) {
  const [path] = filesOf(target);
  if (path === undefined) return false;
  return samePlaceAmong(path, filesOf(description).slice(1)) !== undefined;
}

/** The source has it open, and holds its lock. */
function belowSource(error: unknown): unknown {
  if (!(error instanceof LacunaError) || error.code !== 'ERR_DEVICE_LOCKED') return error;
  const { device } = error;
  const message = `${device} is below the source, which reads it: "lacuna commit" (commit() in a program) puts the top layer into it`;
  return new LacunaError('ERR_DEVICE_LOCKED', message, { device, cause: error });
}

/** A part of a disk is written into what an earlier copy has made. */
function refuseMissing(error: unknown): void {
  const isMissing = error instanceof LacunaError && error.errno === 'ENOENT';
  if (!isMissing || error.code !== 'ERR_DEVICE_OPEN' || error.device === undefined) return;
  const message = `${error.device} is not there, and only a part of the disk would be written to it: make a full copy first, or check the path`;
  throw new LacunaError('ERR_DEVICE_OPEN', message, {
    device: error.device,
    errno: error.errno,
    cause: error,
  });
}

/** How a file that is made is written. */
type HowWritten = Pick<CopyOptions, 'resume' | 'flush' | 'signal'>;

async function makeOrGoOn(
  kind: NewFile,
  source: BlockDevice,
  how: HowWritten,
  resumption: Planner | undefined,
): Promise<Target> {
  const state = resumption?.saved?.state;
  if (state === undefined) return await make(kind, source, how, resumption);
  return await goOn(kind, source, how, state);
}

async function make(
  made: NewFile,
  source: BlockDevice,
  options: HowWritten,
  resumption: Planner | undefined,
): Promise<Target> {
  const how = { sources: filesOf(source.description) };
  const names = [made.filename, ...(made.dataFile ? [made.dataFile.filename] : [])];
  // What this very copy has left before it had begun is gone then.
  const planned = await resumption?.planTarget(made.filename);
  const unfinished = unfinishedWarning(names);
  const data =
    made.dataFile &&
    (await UnfinishedFile.create(made.dataFile.filename, { ...made.dataFile, ...how }));
  try {
    const file = await UnfinishedFile.create(made.filename, { ...made, ...how, planned });
    try {
      const opened = await openMade(made, { file, data }, options);
      opened.warnings.push(...unfinished);
      return opened;
    } catch (error) {
      await file.removeUnfinished();
      throw error;
    }
  } catch (error) {
    await data?.removeUnfinished();
    throw error;
  }
}

/** The files of a target that is being made. */
interface Files {
  file: UnfinishedFile;
  /** Where the clusters of an image are, if not in its own file. */
  data?: UnfinishedFile | undefined;
}

async function openMade(
  kind: NewFile,
  { file, data }: Files,
  { flush = true, signal }: Pick<CopyOptions, 'flush' | 'signal'>,
): Promise<Target> {
  const description = kind.describe(file, data);
  const made = file.made();
  const { isZero } = kind;
  const open = () => openDevice(description, { writable: true, knownZero: isZero, signal });
  const opened: Target = {
    device: await open(),
    isZero,
    warnings: [],
    binding: { target: file.name, ...kind.binding },
    made,
    anchor: async () => {
      // The last step of the copy says so.
      await syncName(file.path);
    },
    finish: async () => {
      if (kind.keepsBack) await opened.device.flush();
      if (kind.finish !== undefined) {
        await opened.device.close();
        await kind.finish(file);
      }
      // An image that is there must find its data.
      const lost = (await data?.finish(flush)) ?? [];
      return [...lost, ...(await file.finish(flush))];
    },
    removeUnfinished: async () => {
      await file.removeUnfinished();
      await data?.removeUnfinished();
    },
    keepUnfinished: async () => {
      const left = await file.keepUnfinished();
      await data?.keepUnfinished();
      return left;
    },
    reopen: async () => {},
    close: () => {
      file.release();
      data?.release();
      return opened.device.close();
    },
    ...(kind.layOut && {
      layOut: async (increment: Increment) => {
        await opened.device.close();
        await kind.layOut?.(file, increment);
        opened.device = await open();
      },
    }),
  };
  return opened;
}

/** The file that an earlier run has left: unfinished, or finished but for the end of that run. */
async function goOn(
  kind: NewFile,
  source: BlockDevice,
  options: HowWritten,
  { made, binding }: CopyState,
): Promise<Target> {
  const { filename } = kind;
  const { resume = '', flush = true, signal } = options;
  // Before the unfinished file is looked for, which is beside the target that it belongs to.
  checkBinding(resume, binding, { target: followed(filename) });
  if (made === undefined) throw wasInPlace(resume, filename);
  checkBinding(resume, binding, kind.binding);
  const file = await UnfinishedFile.reopen(filename, made);
  if (file !== undefined) {
    return await openUnfinished(kind, file, source, options);
  }

  if (!(await UnfinishedFile.isFinished(filename, made))) {
    throw mismatch(resume, `${made.path}, the unfinished copy, is gone or is another file`);
  }
  const device = await openDevice(asItIs(kind.describe({ path: filename })), {
    writable: true,
    signal,
  });
  return {
    device,
    isZero: false,
    warnings: [],
    binding: { target: await followed(filename), ...kind.binding },
    made,
    complete: true,
    anchor: async () => {},
    finish: async () => {
      return flush ? await syncName(followed(filename)) : [];
    },
    removeUnfinished: async () => {},
    keepUnfinished: async () => undefined,
    reopen: async () => {},
    close: () => device.close(),
  };
}

/** Opens what an earlier run has left, as long as it is of the size that it was given then. */
async function openUnfinished(
  kind: NewFile,
  file: UnfinishedFile,
  source: BlockDevice,
  options: HowWritten,
): Promise<Target> {
  let opened: Target;
  try {
    await kind.unfinish?.(file);
    // It has been laid out by the run that began it.
    opened = { ...(await openMade(kind, { file }, options)), layOut: undefined };
  } catch (error) {
    file.release();
    throw error;
  }
  const { device } = opened;
  if (device.size === source.size || isRoundedUp(device, source)) return opened;
  await opened.close();
  const what = `${file.path}, the unfinished copy, has ${device.size} bytes now`;
  throw mismatch(options.resume ?? '', `${what}, which is not the size that it was made with`);
}

function wasInPlace(resume: string, filename: string): LacunaError {
  const what = `${filename} was written in place when the copy began`;
  return mismatch(resume, `${what} (--in-place, or inPlace), and a new file would be made now`);
}
