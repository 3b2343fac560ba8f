/** Opens the target of a copy, making it first where it is a file. */
import type { Stats } from 'node:fs';
import { chmod, chown, realpath, rename, rm, stat } from 'node:fs/promises';
import {
  createRawFile,
  Device,
  type DeviceDescription,
  type FileDescription,
  openDevice,
  parseDescription,
  syncFolder,
} from '../block/index.js';
import { LacunaError } from '../errors/index.js';
import type { CopyOptions, DeviceSource } from './options.js';

/** A target that is ready to be written. */
export interface Target {
  device: Device;
  /** Every byte reads as zero. */
  isZero: boolean;
  warnings: string[];
  /** Makes the target take its final name, when all is written and durable. */
  commit(): Promise<void>;
  /** Removes what was made, when nothing was written to it yet. */
  abandon(): Promise<void>;
  /** Closes what was opened here; a device of the caller's stays open. */
  close(): Promise<void>;
}

/** A file that is being made has this after its name until it is whole. */
export const PARTIAL = '.partial';

/**
 * A full copy to a file goes to `NAME.partial`, which takes the name when it is whole: a copy that stops
 * half way never looks like a disk, and what the name held before is not lost. Everything else is written
 * in place.
 */
export async function prepareTarget(options: CopyOptions, source: Device): Promise<Target> {
  const { target, signal } = options;
  const incremental = options.context !== undefined || options.bitmap !== undefined;
  const told = options.targetIsZero ?? false;
  if (target instanceof Device) return inPlace(target, source, incremental, told, false);

  const description = describeTarget(target, options, source);
  if (description.driver === 'file' && !incremental) {
    const old = await stat(description.filename).catch(ignoreMissing);
    if (old === undefined || old.isFile()) {
      await refuseSameFile(description.filename, old, source);
      return await make(description, old, source, options);
    }
  }
  const device = await openDevice(description, { writable: true, signal });
  try {
    return inPlace(device, source, incremental, told, true);
  } catch (error) {
    await device.close();
    throw error;
  }
}

function describeTarget(
  target: Exclude<DeviceSource, Device>,
  options: CopyOptions,
  source: Device,
): DeviceDescription {
  const description =
    typeof target === 'string'
      ? parseDescription(target, { format: options.targetFormat })
      : target;
  if (description.driver === 'null')
    return { ...description, size: description.size ?? source.size };
  return description;
}

function inPlace(
  device: Device,
  source: Device,
  incremental: boolean,
  told: boolean,
  ours: boolean,
): Target {
  return {
    device,
    isZero: told || device.capabilities.knownZero,
    warnings: checkSize(device, source, incremental),
    commit: async () => {},
    abandon: async () => {},
    close: async () => (ours ? device.close() : undefined),
  };
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

async function refuseSameFile(filename: string, old: Stats | undefined, source: Device) {
  const { description } = source;
  if (old === undefined || description?.driver !== 'file') return;
  const from = await stat(description.filename);
  if (from.dev !== old.dev || from.ino !== old.ino) return;
  throw new LacunaError(
    'ERR_COPY_MISMATCH',
    `${filename} is the source itself; name another file as the target`,
    { device: filename },
  );
}

/** Makes a file that replaces `old`, if there is one, when it is whole. */
async function make(
  description: FileDescription,
  old: Stats | undefined,
  source: Device,
  { flush = true, signal }: CopyOptions,
): Promise<Target> {
  const filename = old ? await realpath(description.filename) : description.filename;
  const partial = `${filename}${PARTIAL}`;
  await createRawFile(partial, source.size);
  if (old) await inheritAccess(partial, old);
  const opened = { ...description, filename: partial };
  const device = await openDevice(opened, { writable: true, knownZero: true, signal });
  return {
    device,
    isZero: true,
    warnings: [],
    commit: async () => {
      await rename(partial, filename);
      if (flush) await syncFolder(filename);
    },
    abandon: () => rm(partial),
    close: () => device.close(),
  };
}

/** Whoever could not read the old file must not read the new one; the owner is kept where that is allowed. */
async function inheritAccess(filename: string, old: Stats): Promise<void> {
  await chmod(filename, old.mode & 0o7777);
  await chown(filename, old.uid, old.gid).catch(() => {});
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}
