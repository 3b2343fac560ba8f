/** A raw file that is there and is written in place gets the size of the source: longer at first, or shorter at last. */
import {
  type BlockDevice,
  type DeviceDescription,
  type FileDescription,
  fileOf,
  openDevice,
  resizeRawFile,
} from '../../block/index.js';
import { statIfThere } from '../../files/index.js';
import { type CopyOptions, isPartial, type PlanScope } from '../options/index.js';
import { mismatch } from './resume-binding.js';

/** The file of a target that is to be fitted; undefined where the target keeps its size. */
export function fileToFit(
  description: DeviceDescription,
  options: PlanScope & Pick<CopyOptions, 'inPlace'>,
): FileDescription | undefined {
  if (!options.inPlace || isPartial(options)) return undefined;
  const file = fileOf(description);
  return file && statIfThere(file.filename)?.isFile() ? file : undefined;
}

/**
 * Opens a target whose file has room for all of the source then.
 *
 * @param how with `resume` an earlier run has seen to that, and what has been cut off since then would not be copied again
 * @throws LacunaError ERR_RESUME_MISMATCH
 */
export async function openFitting(
  description: DeviceDescription,
  file: FileDescription,
  source: BlockDevice,
  { signal, resume }: Pick<CopyOptions, 'signal' | 'resume'>,
): Promise<BlockDevice> {
  const open = () => openDevice(description, { writable: true, signal });
  const device = await open();
  if (device.size >= source.size) return device;
  // A device keeps its size, so the file is opened anew.
  await device.close();
  if (resume !== undefined) {
    throw mismatch(resume, `${file.filename} has become shorter since the copy began`);
  }
  resizeRawFile(file.filename, source.size);
  return await open();
}

/** The part of a target that changes with its size. */
interface InPlace {
  readonly device: BlockDevice;
  readonly warnings: string[];
  finish(): Promise<string[]>;
}

/** Cuts off what is longer than the source, when all is written. */
export function cutLater(
  target: InPlace,
  { filename }: FileDescription,
  source: BlockDevice,
  { flush = true }: Pick<CopyOptions, 'flush'>,
): void {
  const { size } = target.device;
  if (size <= source.size) return;
  // The one warning is that more was left there.
  target.warnings.length = 0;
  target.finish = async () => {
    resizeRawFile(filename, source.size);
    if (flush) await target.device.flush();
    return [];
  };
}
