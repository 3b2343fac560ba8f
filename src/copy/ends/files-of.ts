import type { DeviceDescription } from '../../block/index.js';

/** The paths of all files that a device is made of: its own, and those of the images below it. */
export function filesOf(description: DeviceDescription | undefined): string[] {
  if (description?.driver === 'file') return [description.filename];
  if (description?.driver !== 'qcow2') return [];
  const { file, backing, 'data-file': dataFile } = description;
  return [file, dataFile, backing ?? undefined].flatMap(filesOf);
}
