/** Internal snapshots whose disks are partly in the files below: a change there would change them without a word. */
import {
  type BlockDevice,
  type DeviceDescription,
  fileOf,
  openDevice,
  type Qcow2Description,
} from '../block/index.js';
import { LacunaError } from '../errors/index.js';
import { Context, visitTogether } from '../extent/index.js';
import { type DifferencesOptions, differences } from './differences.js';

/** How many names a message tells. */
const MOST_NAMES = 5;

/**
 * Refuses to go on where a snapshot of an image would show something else.
 *
 * @param image the image as it is: over what is below it now.
 * @param below what the disk of the image will be over; undefined where that is nothing.
 * @throws LacunaError ERR_IMAGE_CHAIN with the names of the snapshots.
 */
export async function refuseToChangeSnapshots(
  image: Qcow2Description,
  below: BlockDevice | undefined,
  options: DifferencesOptions,
): Promise<void> {
  const what = 'would show something else afterwards.';
  await refuseWhere(image, { what }, async (snapshot) => {
    for await (const _ of differences(snapshot, below, options)) return true;
    return false;
  });
}

/**
 * Refuses to go on where a snapshot of an image shows anything of what is below, which need not be there.
 *
 * @throws LacunaError ERR_IMAGE_CHAIN with the names of the snapshots.
 */
export async function refuseToUncoverSnapshots(
  image: Qcow2Description,
  signal?: AbortSignal,
): Promise<void> {
  const what =
    'need it to stay as it is. If the new backing file shows the same to them, say so (--snapshots-too); otherwise:';
  await refuseWhere(image, { what, backing: null }, async (snapshot) => {
    const contexts = [Context.depth];
    let reads = false;
    const lists = await snapshot.extents(0, snapshot.size, { contexts, signal });
    visitTogether(lists, snapshot.size, (_offset, length, [depth]) => {
      reads ||= depth === 0 && length > 0;
    });
    return reads;
  });
}

async function refuseWhere(
  image: Qcow2Description,
  { what, ...over }: Pick<Qcow2Description, 'backing'> & { readonly what: string },
  changes: (snapshot: BlockDevice) => Promise<boolean>,
): Promise<void> {
  const { snapshots, name } = await detailsOf({ ...image, ...over });
  const changed: string[] = [];
  for (const { id, name: given } of snapshots) {
    await using snapshot = await openDevice({ ...image, ...over, snapshot: id });
    if (await changes(snapshot)) changed.push(`"${given}" (${id})`);
  }
  if (changed.length === 0) return;
  const more = changed.length - MOST_NAMES;
  const names = changed.slice(0, MOST_NAMES).join(', ') + (more > 0 ? ` and ${more} more` : '');
  const message =
    `The internal snapshots ${names} of ${name} show what lies below it, and ${what} ` +
    'First copy those that you need into images of their own ("snapshot" of a description), then delete them all ("qemu-img snapshot -d")';
  throw new LacunaError('ERR_IMAGE_CHAIN', message, { device: name });
}

async function detailsOf(image: DeviceDescription) {
  await using device = await openDevice(image);
  return { name: device.name, snapshots: device.details?.snapshots ?? [] };
}

/** What is about the disk as it is now cannot be done with an image that is opened at a snapshot. */
export function refuseSnapshot({ snapshot, file }: Qcow2Description, what: string): void {
  if (snapshot === undefined) return;
  const name = fileOf(file)?.filename ?? 'The image';
  const message = `${name} is named with snapshot "${snapshot}", and ${what}: leave "snapshot" out, or copy the snapshot into an image of its own`;
  throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: name });
}
