import { magicBytes } from '../../../../qcow2/index.js';
import { checkGiven } from '../../../../util/index.js';
import { A_PATH, type BlockDevice } from '../../../contract/index.js';
import {
  type CheckedOptions,
  checkBacking,
  checkOptions,
  checkQcow2Options,
  type MappedClusters,
  type Qcow2Options,
} from './create-options.js';

/**
 * Makes a qcow2 image that reads as zero, or as its backing file, or replaces the content of the file that is there.
 * It is not flushed.
 *
 * @throws RangeError and TypeError for options that cannot be; LacunaError ERR_DEVICE_OPEN if the path cannot be such a
 * file, ERR_IMAGE_CHAIN if it would replace what its backing file is made of, ERR_QCOW2_UNSUPPORTED if its header does not
 * fit into a cluster, ERR_ABORTED, ERR_DEVICE_LOCKED if another program uses a file that would be replaced.
 */
export async function createQcow2(filename: string, given: Qcow2Options): Promise<void> {
  checkGiven('createQcow2', 'filename', filename, A_PATH);
  checkQcow2Options('createQcow2', given);
  if (given.backing !== undefined) checkBacking('createQcow2: backing', given.backing);
  const options = checkOptions(given);
  await write(filename, options, options.preallocation === 'off' ? {} : { mapped: allOf(options) });
}

/**
 * Makes a qcow2 image as {@link createQcow2} does, in which clusters are mapped before anything is written to them: one
 * behind the other in the file, in the order of the disk. They read as zero, and can be written without any change of
 * metadata; see `mapping` of a description.
 *
 * @param mapped a bitmap whose granularity is the cluster size. With preallocation all clusters are mapped.
 * @param zeroed clusters that read as zero, and take no room; none of them mapped. With a backing file this must be given:
 * whoever does so will write all of what is mapped, since the backing file is not seen there.
 */
export async function layOutQcow2(
  filename: string,
  given: Qcow2Options,
  mapped: MappedClusters,
  zeroed?: MappedClusters,
): Promise<void> {
  const options = checkOptions(given);
  if (options.backing !== undefined && zeroed === undefined) {
    throw new TypeError('clusters that are mapped before they are written would hide the backing');
  }
  if (options.version === 2 && zeroed !== undefined) {
    throw new TypeError('version 2 cannot say that clusters read as zero');
  }
  const isAll = options.preallocation !== 'off';
  await write(filename, options, { mapped: isAll ? allOf(options) : mapped, zeroed });
}

/**
 * Makes a qcow2 image as {@link layOutQcow2} does, over what a device holds: a block device, or an NBD export. The image takes
 * as much of it as it needs. Clusters that are mapped hold what was there before, until they are written. Nobody takes it for
 * an image before {@link finishQcow2On}, but who says `mapping: 'unfinished'`.
 *
 * @param begins called when it is known that the image fits, before anything is changed
 * @throws LacunaError ERR_COPY_MISMATCH where it does not fit
 */
export async function layOutQcow2On(
  device: BlockDevice,
  given: Qcow2Options,
  mapped: MappedClusters,
  begins: () => void,
): Promise<void> {
  const { writeImageOn } = await import('./new-image.js');
  await writeImageOn(device, checkOptions(given), { mapped, begins });
}

/** Makes an image of what {@link layOutQcow2On} has laid out: everything in it is written by now. It is not flushed. */
export async function finishQcow2On(device: BlockDevice, signal?: AbortSignal): Promise<void> {
  await device.write(0, magicBytes({ finished: true }), { signal });
}

/**
 * Bytes of a device that {@link formatQcow2On} needs for such an image.
 *
 * @throws as {@link createQcow2} for options that cannot be.
 */
export async function newQcow2Bytes(given: Qcow2Options): Promise<number> {
  const options = checkOptions(given);
  const { bytesOfImage } = await import('./new-image.js');
  return bytesOfImage(options, atOnce(options));
}

/**
 * Makes an empty qcow2 image over what a device holds; see {@link layOutQcow2On}. With preallocation all clusters are mapped.
 * The image is whole, and not flushed.
 */
export async function formatQcow2On(device: BlockDevice, given: Qcow2Options): Promise<void> {
  const options = checkOptions(given);
  const { writeImageOn } = await import('./new-image.js');
  await writeImageOn(device, options, { mapped: atOnce(options), begins: () => {} });
  await device.flush({ signal: options.signal });
  await finishQcow2On(device, options.signal);
}

function atOnce(options: CheckedOptions): MappedClusters {
  return options.preallocation === 'off'
    ? { count: 0, nextDirty: () => -1, nextZero: (offset) => offset }
    : allOf(options);
}

function allOf({ size, clusterSize }: CheckedOptions): MappedClusters {
  const count = Math.ceil(size / clusterSize);
  return { count, nextDirty: (offset) => (offset < size ? offset : -1), nextZero: () => -1 };
}

/** What writes an image is loaded when one is made: most copies make none. */
async function write(
  filename: string,
  options: CheckedOptions,
  clusters: { readonly mapped?: MappedClusters; readonly zeroed?: MappedClusters | undefined },
): Promise<void> {
  const { writeNewImage } = await import('./new-image.js');
  await writeNewImage(filename, options, clusters);
}
