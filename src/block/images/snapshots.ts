/** Internal snapshots of an image that nobody has open. */
import type { Snapshot } from '../../qcow2/index.js';
import { checkGiven, closeAfter, optionCheck } from '../../util/index.js';
import {
  A_SOURCE,
  type BlockDevice,
  type DeviceDescription,
  type SnapshotDetails,
} from '../contract/index.js';
import type { OpenOptions } from '../open/index.js';
import { imageFileOf, openImageFile } from './image-file.js';

/** How the file of an image is opened; see {@link OpenOptions}. */
export interface SnapshotOptions extends Pick<OpenOptions, 'format' | 'signal'> {}

const checkSnapshotOptions = optionCheck<SnapshotOptions>({ format: 'any', signal: 'signal' });

/** QEMU takes no more of a name. */
const MOST_NAME_BYTES = 255;

/**
 * Takes an internal snapshot of a qcow2 image: its disk as it is now, which shares its clusters from then on. Nobody else may
 * have the image open; of a running machine QEMU takes it. Bitmaps stay as they are.
 *
 * After a crash the image has the snapshot or not, and says that it was not closed: who opens it for writing next, here or
 * in QEMU, sees to that. An image of version 2 cannot say so: "check -r all" makes it right.
 *
 * @param name 1 to 255 bytes; no other snapshot has it as its name or id.
 * @throws RangeError for another name; LacunaError ERR_DEVICE_FORMAT where this is no qcow2 image, ERR_DEVICE_UNSUPPORTED
 * where there is a snapshot of that name, ERR_QCOW2_UNSUPPORTED where the image has a data file or its refcounts end too
 * soon; ERR_DEVICE_LOCKED, ERR_QCOW2_CORRUPT, ERR_ABORTED.
 */
export async function createSnapshot(
  source: string | DeviceDescription,
  name: string,
  options: SnapshotOptions = {},
): Promise<SnapshotDetails> {
  checkArguments('createSnapshot', source, name, options);
  const length = Buffer.byteLength(name);
  if (length === 0 || length > MOST_NAME_BYTES || name.includes('\0')) {
    throw new RangeError(`the name of a snapshot has 1 to ${MOST_NAME_BYTES} bytes, not ${length}`);
  }
  const { signal } = options;
  return withFile(source, options, ({ createSnapshot: create }, file) =>
    create(file, name, { date: new Date(), signal }),
  );
}

/**
 * Makes the disk of a qcow2 image what it was in an internal snapshot, which stays. What the disk is now is lost, but for what
 * other snapshots hold. It gets the size that it had then, and all of it is dirty in the bitmaps that record. Nobody else may
 * have the image open. See {@link createSnapshot} for crashes.
 *
 * @param wanted its id, or its name.
 * @throws LacunaError ERR_DEVICE_OPEN where there is no such snapshot, ERR_DEVICE_UNSUPPORTED
 * where several are called that, ERR_BITMAP_INCONSISTENT where the size changes
 * and a bitmap lacks writes; what {@link createSnapshot} throws.
 */
export async function applySnapshot(
  source: string | DeviceDescription,
  wanted: string,
  options: SnapshotOptions = {},
): Promise<SnapshotDetails> {
  checkArguments('applySnapshot', source, wanted, options);
  return withFile(source, options, ({ applySnapshot: apply }, file) =>
    apply(file, wanted, options),
  );
}

/**
 * Deletes an internal snapshot of a qcow2 image, and gives back the space that only it took. Nobody else may have the image
 * open. See {@link createSnapshot} for crashes.
 *
 * @param wanted its id, or its name.
 * @throws LacunaError ERR_DEVICE_OPEN where there is no such snapshot, ERR_DEVICE_UNSUPPORTED
 * where several are called that; what {@link createSnapshot} throws.
 */
export async function deleteSnapshot(
  source: string | DeviceDescription,
  wanted: string,
  options: SnapshotOptions = {},
): Promise<SnapshotDetails> {
  checkArguments('deleteSnapshot', source, wanted, options);
  return withFile(source, options, ({ deleteSnapshot: remove }, file) =>
    remove(file, wanted, options),
  );
}

function checkArguments(
  owner: string,
  source: string | DeviceDescription,
  name: string,
  options: SnapshotOptions,
): void {
  checkGiven(owner, 'source', source, A_SOURCE);
  checkGiven(owner, 'name', name, 'the name of the snapshot');
  checkSnapshotOptions(owner, options);
}

type Changes = typeof import('../drivers/qcow2/snapshots/index.js');

/** Loaded when it is needed, as most commands have nothing to do with it. */
async function withFile(
  source: string | DeviceDescription,
  { format, signal }: SnapshotOptions,
  change: (changes: Changes, file: BlockDevice) => Promise<Snapshot>,
): Promise<SnapshotDetails> {
  const own = imageFileOf(source, format, {
    other: 'nothing else has snapshots',
    whole: 'changed',
  });
  const file = await openImageFile(own, { writable: true, signal });
  const run = async () => {
    const changes = await import('../drivers/qcow2/snapshots/index.js');
    return detailsOf(await change(changes, file));
  };
  return closeAfter(run, () => file.close());
}

function detailsOf({ id, name, size, seconds, stateSize }: Snapshot): SnapshotDetails {
  return { id, name, size, date: new Date(seconds * 1000).toISOString(), stateSize };
}
