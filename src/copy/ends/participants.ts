/** The files that a copy reads or writes, all the way down, so that nothing is made or removed in the place of one. */
import { resolve } from 'node:path';
import {
  type DeviceDescription,
  dataFileOf,
  filesBelow,
  filesOf,
  type ImageFormat,
  imageOf,
  isBlockDevice,
  parseDescription,
  pathOfNamed,
  sideFilesOf,
} from '../../block/index.js';
import { samePlaceAmong } from '../../files/index.js';
import type { CopyOptions, DeviceSource } from '../options/index.js';

/** The files of a device that need not be open, with all that its images name. */
export function filesIn(device: DeviceSource, format?: ImageFormat): string[] {
  const description = describeDevice(device, format);
  return [...new Set([...filesOf(description), ...imagesOf(description).flatMap(below)])];
}

/** The files that a new image is going to have beside itself or below it. */
export function filesOfNewImage(
  target: DeviceSource,
  { image, targetFormat }: Pick<CopyOptions, 'image' | 'targetFormat'>,
): string[] {
  const path = filesOf(describeDevice(target, targetFormat))[0];
  if (path === undefined || image === undefined) return [];
  const { backing, dataFile } = image;
  const data = dataFile === undefined ? [] : [pathOfNamed(dataFile, path)];
  return [...data, ...(backing === undefined ? [] : filesBelow(path, backing))];
}

/**
 * Refuses a file for one use that is there for another.
 *
 * @param what the use, as an option names it
 * @throws RangeError
 */
export function refuseShared(what: string, path: string, others: Iterable<string>): void {
  const other = samePlaceAmong(path, others);
  if (other === undefined) return;
  const same = other === path ? path : `${path} (${other})`;
  throw new RangeError(
    `${what} must name a file of its own, but the copy reads or writes ${same}: name another`,
  );
}

/** A device with the format inside a path. */
type Named = readonly [DeviceSource, ImageFormat?];

/**
 * Refuses files beside the disks, such as the log of a filter, that are a part of one of the disks.
 *
 * @param more tells other files that are written; asked only where there are files beside the disks
 * @throws RangeError
 */
export function refuseSideFiles(
  devices: readonly Named[],
  more: () => readonly string[] = () => [],
): void {
  const sideFiles = devices.flatMap((named) => sideFilesOf(describeDevice(...named)));
  if (sideFiles.length === 0) return;
  const disks = [...devices.flatMap((named) => filesIn(...named)), ...more()];
  for (const { key, path } of sideFiles) {
    if (samePlaceAmong(path, disks) === undefined) continue;
    throw new RangeError(
      `${key} must name a file of its own, and ${path} holds a disk that is read or written here: name another file`,
    );
  }
}

/** What a device is opened by; undefined for an open one that cannot be opened again. */
export function describeDevice(
  device: DeviceSource,
  format?: ImageFormat,
): DeviceDescription | undefined {
  if (isBlockDevice(device)) return device.description;
  return typeof device === 'string' ? parseDescription(device, { format }) : device;
}

/** The data file that an image names, if any. */
export function dataFilesOf(image: string): string[] {
  const path = dataFileOf(image);
  return path === undefined ? [] : [path];
}

/** Paths of qcow2 files, at whatever depth of a description. */
function imagesOf(description: DeviceDescription | undefined): string[] {
  const image = imageOf(description);
  if (image === undefined) return [];
  const { file, backing } = image;
  return [...filesOf(file), ...imagesOf(backing ?? undefined)];
}

function below(image: string): string[] {
  return filesBelow(image, { filename: resolve(image), format: 'qcow2' });
}
