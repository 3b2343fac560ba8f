/** Opens the target of a copy, making it first where it is a file. */
import {
  Device,
  type DeviceDescription,
  type FileDescription,
  openDevice,
  syncFolder,
} from '../block/index.js';
import { LacunaError, throwIfAborted } from '../errors/index.js';
import { reconnectSeconds, rulesOf } from './error-policy.js';
import type { CopyOptions } from './options.js';
import { followed, isSameFile, type MadeFile, PartialFile, statIfThere } from './partial-file.js';
import { isPartial } from './plan-scope.js';
import { type Binding, deviceBinding, mismatch } from './resume-binding.js';
import type { CopyState } from './resume-file.js';
import { patient, reopened } from './source.js';

/** A target that is ready to be written. */
export interface Target {
  device: Device;
  /** Every byte reads as zero. */
  isZero: boolean;
  warnings: string[];
  /** What tells it from other targets. */
  binding: Binding;
  /** The unfinished file that is written, if it is one. */
  made?: MadeFile;
  /** An earlier run has moved everything, and given the file its name. */
  complete?: boolean;
  /** Makes durable where the target can be found while it is written. */
  anchor(): Promise<void>;
  /** Makes the target take its final name, when all is written and durable. */
  commit(): Promise<void>;
  /** After a failure: removes what was made and not written to. Never fails. */
  abandon(): Promise<void>;
  /** After a failure: leaves what was written so that nobody takes it for whole. Never fails. */
  leave(): Promise<void>;
  /** Opens the device anew after its connection was lost; one of the caller's, or a file, stays as it is. */
  reopen(): Promise<void>;
  /** Closes what was opened here; a device of the caller's stays open. */
  close(): Promise<void>;
}

/**
 * A full copy to a file is made beside it (see partial-file.ts); everything else, and an incremental copy, is
 * written in place. A copy that is resumed goes on with the target that its state names.
 */
export async function prepareTarget(
  options: CopyOptions,
  source: Device,
  state?: CopyState,
): Promise<Target> {
  const { target, signal } = options;
  const incremental = isPartial(options);
  const told = options.targetIsZero ?? false;
  throwIfAborted(signal);
  const description = describeTarget(options, source);
  await refuseSameFile(description, source);
  const made = description?.driver === 'file' && !incremental && (await isFileToMake(description));
  if (!made || target instanceof Device) refusePreallocation(options, description);
  if (target instanceof Device) return inPlace(target, source, incremental, told);

  if (made) {
    if (state !== undefined) return await goOn(description, options, state);
    return await make(description, source, options);
  }
  const open = () => openDevice(description as DeviceDescription, { writable: true, signal });
  const device = await open();
  try {
    return inPlace(device, source, incremental, told, open);
  } catch (error) {
    await device.close();
    throw error;
  }
}

/** How the target is opened; undefined for a device of the caller's that cannot be opened again. */
export function describeTarget(
  options: CopyOptions,
  source: Device,
): DeviceDescription | undefined {
  const { target } = options;
  if (target instanceof Device) return target.description;
  const seconds = reconnectSeconds(rulesOf(options).target, options);
  const description = patient(target, options.targetFormat, seconds);
  if (description.driver === 'null')
    return { ...description, size: description.size ?? source.size };
  return description;
}

function inPlace(
  device: Device,
  source: Device,
  incremental: boolean,
  told: boolean,
  open?: () => Promise<Device>,
): Target {
  const opened: Target = {
    device,
    isZero: told || device.capabilities.knownZero,
    warnings: checkSize(device, source, incremental),
    binding: deviceBinding('target', device),
    anchor: async () => {},
    commit: async () => {},
    abandon: async () => {},
    leave: async () => {},
    reopen: async () => {
      if (open) opened.device = await reopened(opened.device, open);
    },
    close: async () => (open ? opened.device.close() : undefined),
  };
  return opened;
}

function checkSize(device: Device, source: Device, incremental: boolean): string[] {
  if (device.size === source.size) return [];
  if (device.size > source.size && !incremental) {
    const more = device.size - source.size;
    return [
      `${device.name} is ${more} bytes larger than ${source.name}; those were left as they were`,
    ];
  }
  const need = incremental ? 'an incremental copy needs' : 'a copy needs at least';
  throw new LacunaError(
    'ERR_COPY_MISMATCH',
    `${device.name} has ${device.size} bytes and ${source.name} ${source.size}: ${need} a target of the same size`,
    { device: device.name },
  );
}

/** Reading and writing one file at a time would at best change nothing. */
async function refuseSameFile(target: DeviceDescription | undefined, source: Device) {
  if (target?.driver !== 'file' || source.description?.driver !== 'file') return;
  const old = await statIfThere(target.filename);
  const from = await statIfThere(source.description.filename);
  if (old === undefined || from === undefined || !isSameFile(old, from)) return;
  throw new LacunaError(
    'ERR_COPY_MISMATCH',
    `${target.filename} is the source itself; name another file as the target`,
    { device: target.filename },
  );
}

/** Only a file that is made here can be given its space before. */
function refusePreallocation({ preallocation = 'off' }: CopyOptions, target?: DeviceDescription) {
  if (preallocation === 'off') return;
  const name = target?.driver === 'file' ? target.filename : 'The target';
  const message = `${name} is written in place, so it cannot be preallocated; leave that out`;
  throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: name });
}

/** A regular file is made or replaced; a block device is written in place. */
export async function isFileToMake({ filename }: FileDescription): Promise<boolean> {
  const old = await statIfThere(filename);
  return old === undefined || old.isFile();
}

async function make(
  description: FileDescription,
  source: Device,
  options: CopyOptions,
): Promise<Target> {
  const origin = source.description?.driver === 'file' ? source.description.filename : undefined;
  const file = await PartialFile.create(description.filename, {
    size: source.size,
    source: origin === undefined ? undefined : await statIfThere(origin),
    preallocation: options.preallocation,
    signal: options.signal,
    resume: options.resume,
  });
  try {
    return await openMade(file, description, options);
  } catch (error) {
    await file.abandon();
    throw error;
  }
}

async function openMade(
  file: PartialFile,
  description: FileDescription,
  { flush = true, signal }: CopyOptions,
): Promise<Target> {
  const opened = { ...description, filename: file.path };
  const made = await file.made();
  const device = await openDevice(opened, { writable: true, knownZero: true, signal });
  return {
    device,
    isZero: true,
    warnings: [],
    binding: { target: file.name },
    made,
    anchor: () => syncFolder(file.path),
    commit: () => file.commit(flush),
    abandon: () => file.abandon(),
    leave: () => file.leave(),
    reopen: async () => {},
    close: () => {
      file.release();
      return device.close();
    },
  };
}

/** The file that an earlier run has left: unfinished, or finished but for the end of that run. */
async function goOn(
  description: FileDescription,
  options: CopyOptions,
  { made }: CopyState,
): Promise<Target> {
  const { filename } = description;
  const { resume = '', flush = true, signal } = options;
  if (made === undefined) {
    throw mismatch(resume, `${filename} is a file to be made now, and was written in place`);
  }
  const file = await PartialFile.reopen(filename, made);
  if (file !== undefined) return await openMade(file, description, options);

  if (!(await PartialFile.isCommitted(filename, made))) {
    throw mismatch(resume, `${made.path}, the unfinished copy, is gone or is another file`);
  }
  const device = await openDevice(description, { writable: true, signal });
  return {
    device,
    isZero: false,
    warnings: [],
    binding: { target: await followed(filename) },
    made,
    complete: true,
    anchor: async () => {},
    commit: () => (flush ? syncFolder(filename) : Promise.resolve()),
    abandon: async () => {},
    leave: async () => {},
    reopen: async () => {},
    close: () => device.close(),
  };
}
